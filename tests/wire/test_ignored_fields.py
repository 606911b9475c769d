"""Ignored fields of a request, their names in the answer, and misspelt fields."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import InvalidRequestError
from inferd.wire.anthropic.requests import CountTokensRequest, MessagesRequest
from inferd.wire.ignored_fields import FOREIGN_FIELDS, MAX_NAMES, MAX_UNKNOWN, IgnoredFields, nearest_name
from inferd.wire.json_body import decode
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.embeddings import EmbeddingRequest
from inferd.wire.openai.responses.requests import ResponsesRequest
from inferd.wire.openai.text_completions import TextRequest
from inferd.wire.openai.tokenize import TokenizeRequest

REQUESTS = [
    *(ChatRequest, TextRequest, EmbeddingRequest, ResponsesRequest, MessagesRequest, CountTokensRequest),
    TokenizeRequest,
]


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int | None = None
    weight: float | None = None
    raw: dict | None = None


class Root(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    leaf: Leaf | None = None
    leaves: str | list[Leaf] | None = None
    limit: int = 0
    alias: int | None = msgspec.field(name="async", default=None)


DECODER = msgspec.json.Decoder(Root)


def decoded(value: object, ignored: IgnoredFields) -> Root:
    return decode(json.dumps(value).encode(), DECODER, ignored)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"limit": 1}, ""),
        ({"limit": 1, "surprise": 2}, "surprise"),
        ({"leaf": {"surprise": {"deep": 1}}}, "leaf.surprise"),
        ({"leaves": [{}, {"surprise": 1}, {"surprise": 2}], "other": 3}, "other, leaves[1].surprise"),
        ({"leaves": "text", "other": []}, "other"),
        ({"surprise": None}, ""),
        ({"leaf": {"raw": {"surprise": 1}}}, ""),
        ({"async": 1, "alias": 2}, "alias"),
    ],
)
def test_unknown_field_is_dropped_and_named_at_every_depth(value, names):
    ignored = IgnoredFields()
    decoded(value, ignored)
    assert ignored.header_value() == names


def test_whole_number_is_an_integer_where_one_is_wanted():
    root = decoded({"limit": 64.0, "leaves": [{"size": 2.0, "weight": 3.0}]}, IgnoredFields())
    assert root == Root(limit=64, leaves=[Leaf(size=2, weight=3.0)])
    assert type(root.limit) is int
    with pytest.raises(InvalidRequestError, match="expected an integer, got a number"):
        decoded({"limit": 64.5}, IgnoredFields())


def test_without_a_record_unknown_fields_are_refused():
    with pytest.raises(InvalidRequestError) as caught:
        decode(b'{"surprise": 1}', DECODER)
    assert (caught.value.param, caught.value.code) == ("surprise", "unknown_parameter")


def test_strict_record_refuses_unknown_and_ineffective_fields():
    for refused in (
        lambda ignored: decoded({"leaves": [{}, {"surprise": 1}]}, ignored),
        lambda ignored: ignored.add("leaves[1].surprise"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            refused(IgnoredFields(strict=True))
        assert caught.value.param == "leaves[1].surprise"


def test_header_is_printable_ascii_and_bounded():
    ignored = IgnoredFields()
    for name in ("a,b", "c d", "\n\x7f", "中", "😀", "e" * 500):
        ignored.add(name)
    names = ignored.header_value().split(", ")
    assert names == ["a\\x2cb", "c\\x20d", "\\x0a\\x7f", "\\u4e2d", "\\U0001f600", "e" * 64]
    for number in range(30):
        ignored.add(f"f{number}")
    names = ignored.header_value().split(", ")
    assert len(names) == MAX_NAMES + 1
    assert names[-1] == f"+{36 - MAX_NAMES}"


@given(st.lists(st.text(max_size=80), max_size=40))
def test_any_names_make_a_header(names):
    ignored = IgnoredFields()
    for name in names:
        ignored.add(name)
    header = ignored.header_value()
    assert header.isascii()
    assert header.isprintable()
    assert all(len(name) <= 64 for name in header.split(", "))


def test_items_are_named_one_by_one_and_their_fields_once():
    ignored = IgnoredFields()
    for path in ("tools[0]", "tools[3]", "messages[1].id", "messages[2].id", "tools[0]"):
        ignored.add(path)
    assert ignored.header_value() == "tools[0], tools[3], messages[1].id"


def test_renamed_record_is_the_same_record():
    ignored = IgnoredFields()
    ignored.renamed(lambda path: path.replace("messages", "input")).add("messages[0].name")
    ignored.add("store")
    assert ignored.header_value() == "input[0].name, store"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("max_token", "max_tokens"), ("temprature", "temperature"), ("maxTokens", "max_tokens"), ("modle", "model")),
        *(("strem", "stream"), ("tols", "tools"), ("sede", "seed"), ("top_kk", "top_k"), ("top-p", "top_p")),
        *(("x", None), ("id", None), ("date", None), ("frequency", None), ("some_client_field", None)),
        *(("usage", None), ("num_ctx", None), ("keep_alive", None), ("options", None)),
    ],
)
def test_name_within_two_letters_of_a_known_one_is_a_typo(name, meant):
    assert nearest_name(name, ChatRequest.__struct_fields__) == meant


@pytest.mark.parametrize("kind", REQUESTS)
def test_typo_in_any_request_is_refused_with_the_field_that_was_meant(kind):
    for name in kind.__struct_fields__:
        if len(name) > 5:
            typo = name[:2] + name[3:]
            if typo in kind.__struct_fields__:
                continue
            with pytest.raises(InvalidRequestError, match="Did you mean") as caught:
                decode(json.dumps({typo: 1}).encode(), msgspec.json.Decoder(kind), IgnoredFields())
            assert (caught.value.param, caught.value.code) == (typo, "unknown_parameter")


@pytest.mark.parametrize("name", ["top_a", "min_k", "models", "mode"])
def test_field_of_another_well_known_api_is_no_typo(name):
    ignored = IgnoredFields()
    assert nearest_name(name, ChatRequest.__struct_fields__) is not None
    with pytest.raises(InvalidRequestError, match="'model' is missing"):
        decode(json.dumps({name: 1, "messages": []}).encode(), msgspec.json.Decoder(ChatRequest), ignored)
    assert ignored.header_value() == name
    assert name in FOREIGN_FIELDS


def test_too_many_unknown_fields_are_refused_in_little_time():
    value = {f"field_of_{number:06d}": 1 for number in range(100_000)}
    began_s = time.thread_time()
    with pytest.raises(InvalidRequestError, match=f"more than {MAX_UNKNOWN} different unknown fields"):
        decoded(value, IgnoredFields())
    many_s = time.thread_time() - began_s
    began_s = time.thread_time()
    msgspec.json.decode(json.dumps(value))
    assert many_s < 20 * (time.thread_time() - began_s), "names are compared up to the bound only"


def test_same_unknown_field_of_many_items_counts_once():
    ignored = IgnoredFields()
    decoded({"leaves": [{"surprise": 1}] * 5000}, ignored)
    assert ignored.header_value() == "leaves[0].surprise"
