"""Lists of an echoed prompt, and vLLM's `prompt_logprobs`."""

from __future__ import annotations

import json
import math

import pytest

from inferd.logprobs import PromptLogprob, RankedToken
from inferd.wire.openai.prompt_logprobs import (
    EchoLogprobsWriter,
    JoinedTextLogprobs,
    PromptLogprobsWriter,
    with_fields,
)

VOCABULARY = [b"<s>", b" Hello", b" ", b"h\xc3", b"\xa9", b"llo", b"Hello"]
FIRST = PromptLogprob(0)


def scored(token_id: int, logprob: float = -1.0, rank: int = 4, *top: tuple[int, float]) -> PromptLogprob:
    ranked = tuple(RankedToken(best, value, place) for place, (best, value) in enumerate(top, start=1))
    return PromptLogprob(token_id, logprob, rank, ranked)


def echo(text: str, num_top: int = 20) -> EchoLogprobsWriter:
    return EchoLogprobsWriter(text, num_top, VOCABULARY.__getitem__)


def test_prompt_logprobs_have_vllms_shape_with_the_token_first_and_once() -> None:
    writer = PromptLogprobsWriter(2, VOCABULARY.__getitem__)
    writer.add([FIRST, scored(5, -3.0, 7, (1, -0.1), (2, -0.2), (3, -0.3))])
    writer.add([scored(1, -math.inf, 7, (1, -0.1)), scored(4, -1.0, 1)])
    assert json.loads(writer.encoded()) == [
        None,
        {
            "5": {"logprob": -3.0, "rank": 7, "decoded_token": "llo"},
            "1": {"logprob": -0.1, "rank": 1, "decoded_token": " Hello"},
            "2": {"logprob": -0.2, "rank": 2, "decoded_token": " "},
        },
        {"1": {"logprob": -0.1, "rank": 1, "decoded_token": " Hello"}},
        {"4": {"logprob": -1.0, "rank": 1, "decoded_token": "\ufffd"}},
    ]
    assert [*json.loads(writer.encoded())[1]] == ["5", "1", "2"]


def test_prompt_logprobs_without_a_place_are_an_empty_list() -> None:
    assert PromptLogprobsWriter(0, VOCABULARY.__getitem__).encoded() == b"[]"


def test_echoed_lists_begin_with_null_and_show_the_tokens_own_beside_the_best() -> None:
    found = echo("<s> Hellollo", 1).write([FIRST, scored(1, -2.0, 3, (6, -0.5), (2, -0.6)), scored(5, -math.inf, 9)])
    assert found.tokens == ["<s>", " Hello", "llo"]
    assert found.token_logprobs == [None, -2.0, -9999.0]
    assert found.top_logprobs == [None, {"Hello": -0.5, " Hello": -2.0}, {"llo": -9999.0}]
    assert found.text_offset == [0, 3, 9]


@pytest.mark.parametrize(
    ("text", "token_ids", "offsets"),
    [
        ("<s>Hello", [0, 6], [0, 3]),
        ("Hello", [0, 6], [0, 0]),
        ("Hellollo", [1, 5], [0, 5]),
        ("Hellollo", [0, 1, 5], [0, 0, 5]),
        ("hé llo", [3, 4, 2, 5], [0, 1, 2, 3]),
        ("Hello", [2, 6, 5, 5], [0, 0, 5, 5]),
    ],
    ids=["BOS in the text", "BOS added", "blank added", "both added", "a character of two tokens", "another text"],
)
def test_offset_of_a_prompt_token_is_its_place_in_the_echo(text, token_ids, offsets) -> None:
    writer = echo(text)
    assert writer.write([scored(token_id) for token_id in token_ids]).text_offset == offsets
    assert writer.num_characters == len(text)


def test_lists_written_in_pieces_join_to_those_of_one_piece() -> None:
    tokens = [FIRST, *(scored(token_id, -0.5, 2, (1, -0.1)) for token_id in (1, 5, 3, 4, 2))]
    text, joined = "<s> Hellolloh\u00e9 ", JoinedTextLogprobs()
    pieces = echo(text)
    for start in range(0, 6, 2):
        joined.add(pieces.write(tokens[start : start + 2]))
    whole = echo(text).write(tokens)
    assert json.loads(joined.encoded()) == {name: getattr(whole, name) for name in whole.__struct_fields__}


def test_fields_are_added_to_an_encoded_object() -> None:
    assert with_fields(b"{}", {"a": b"1"}) == b'{"a":1}'
    assert with_fields(b'{"b":2}', {"a": b"[]", "c": b"null"}) == b'{"b":2,"a":[],"c":null}'
    assert with_fields(b'{"b":2}', {}) == b'{"b":2}'
