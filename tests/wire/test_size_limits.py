"""Size limits of a body in every API: accepted up to the limit, refused by name beyond it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from inferd.errors import InvalidRequestError, RequestTooLargeError
from inferd.wire import json_body as decoding
from inferd.wire.anthropic.requests import parse_count_tokens_request, parse_messages_request
from inferd.wire.json_body import decode
from inferd.wire.openai import messages as messages_module
from inferd.wire.openai.batches import parse_create_batch, parse_line
from inferd.wire.openai.chat_request import parse_chat_request
from inferd.wire.openai.embeddings import parse_embedding_request
from inferd.wire.openai.responses.requests import parse_responses_request
from inferd.wire.openai.text_completions import parse_text_request
from inferd.wire.openai.tokenize import parse_detokenize_request, parse_tokenize_request

HI = {"role": "user", "content": "Hi"}
TWO = {"role": "user", "content": [{"type": "text", "text": "a"}] * 2}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "o/d", **fields}).encode()


def call(number: int) -> dict[str, Any]:
    return {"id": str(number), "type": "function", "function": {"name": "f", "arguments": "{}"}}


def result(number: int) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": str(number), "content": "x"}


CONVERSATIONS: list[tuple[Callable[[bytes], object], str, dict[str, Any], int]] = [
    (parse_chat_request, "messages", {"messages": [HI, TWO]}, 4),
    (parse_chat_request, "messages", {"messages": [HI, {"role": "assistant", "tool_calls": [call(1)]}, result(1)]}, 4),
    (parse_responses_request, "input", {"input": [HI, {"role": "user", "content": "b"}]}, 2),
    (
        parse_responses_request,
        "input",
        {"input": [HI, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}] * 2}]},
        4,
    ),
    (parse_messages_request, "messages", {"messages": [HI, TWO], "max_tokens": 1}, 4),
    (parse_count_tokens_request, "messages", {"messages": [TWO, TWO]}, 6),
]


@pytest.mark.parametrize(("parse", "field", "fields", "n_parts"), CONVERSATIONS)
def test_parts_of_a_conversation_are_bounded_together(monkeypatch, parse, field, fields, n_parts):
    monkeypatch.setattr(messages_module, "MAX_PARTS", n_parts)
    parse(body(**fields))
    monkeypatch.setattr(messages_module, "MAX_PARTS", n_parts - 1)
    with pytest.raises(InvalidRequestError, match="too many parts") as caught:
        parse(body(**fields))
    assert caught.value.param == field


def test_commas_of_a_body_are_bounded():
    decoder = msgspec.json.Decoder(list[int])
    most = decoding.MAX_COMMAS
    assert len(decode(b"[" + b"1," * most + b"1]", decoder)) == most + 1
    with pytest.raises(RequestTooLargeError, match=f"has {most + 1} commas; at most {most}"):
        decode(b"[" + b"1," * (most + 1) + b"1]", decoder)


@pytest.mark.parametrize("parse", [parse_responses_request, parse_messages_request])
def test_body_beyond_the_bound_is_not_decoded(monkeypatch, parse):
    monkeypatch.setattr(decoding, "MAX_COMMAS", 3)
    with pytest.raises(RequestTooLargeError):
        parse(body(max_tokens=1, messages=[HI], input="a", tools=[{"type": "web_search"}]))


def objects(n_keys: int, space: str = "") -> bytes:
    return b"{" + b",".join(b'"k%d"%s:1' % (number, space.encode()) for number in range(n_keys)) + b"}"


@pytest.mark.parametrize("space", ["", " ", "\n\t "])
def test_keys_of_a_body_are_bounded(space):
    decoder = msgspec.json.Decoder(dict[str, int])
    most = decoding.MAX_KEYS
    assert len(decode(objects(most, space), decoder)) == most
    with pytest.raises(RequestTooLargeError, match=f"more than {most} keys together"):
        decode(objects(most + 1, space), decoder)


PARSERS = [
    parse_chat_request,
    parse_responses_request,
    parse_messages_request,
    parse_count_tokens_request,
    parse_text_request,
    parse_embedding_request,
    parse_create_batch,
    lambda line: parse_line(line, "/v1/chat/completions"),
    parse_tokenize_request,
    parse_detokenize_request,
]


@pytest.mark.parametrize("parse", PARSERS)
def test_keys_are_bounded_at_every_endpoint(monkeypatch, parse):
    monkeypatch.setattr(decoding, "MAX_KEYS", 20)
    with pytest.raises(RequestTooLargeError, match="keys"):
        parse(body(metadata={str(number): "x" for number in range(20)}))


def test_colons_in_strings_are_no_keys(monkeypatch):
    """A tool's result is often JSON in a string; and a key may end in a backslash."""
    monkeypatch.setattr(decoding, "MAX_KEYS", 3)
    decoder = msgspec.json.Decoder(dict[str, str])
    inner = json.dumps({str(number): ":" for number in range(9)})
    assert decode(json.dumps({"a": inner, 'b":': ":" * 9}).encode(), decoder)["a"] == inner
    for name in ("\\", '\\"', '":', "\n"):
        with pytest.raises(RequestTooLargeError):
            decode(json.dumps({f"{name}{number}{name}": "" for number in range(4)}).encode(), decoder)


@pytest.mark.parametrize("piece", [b'\\"', b'"', b"\\", b'":', b'"\\":', b'": '])
@pytest.mark.parametrize("end", [b"", b"\\", b'"'])
def test_counting_keys_takes_linear_time(piece, end):
    """The time is linear in unterminated strings, too."""

    def seconds(n: int) -> float:
        hostile = b'{"' + piece * (n // len(piece)) + b":" * (decoding.MAX_KEYS + 1) + end
        began_s = time.thread_time()
        decoding._has_too_many_keys(hostile)
        return time.thread_time() - began_s

    once = min(seconds(2**19) for _ in range(3))
    assert min(seconds(2**20) for _ in range(3)) <= 4 * once + 0.005


def test_user_turns_in_a_row_are_one_message_in_linear_time():
    turns = [HI, TWO, {"role": "user", "content": "c"}, TWO]
    chat, _ = parse_messages_request(body(max_tokens=1, messages=turns))
    (message,) = chat.messages
    assert isinstance(message.content, list)
    assert [part.text for part in message.content] == ["Hi", "a", "a", "c", "a", "a"]
