"""Bodies of `/v1/rerank` and `/classify`: what is read, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.errors import InvalidRequestError
from inferd.wire.classify import parse_classify_request
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.rerank import MAX_DOCUMENTS, MAX_QUERY_BYTES, RerankRequest, parse_rerank_request


def parsed(**fields: Any) -> RerankRequest:
    body = {"model": "m", "query": "q", "documents": ["a", "b"]} | fields
    return parse_rerank_request(json.dumps(body).encode())


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"query": ""}, "invalid_value", "query"),
    ({"query": None}, "invalid_type", "query"),
    ({"query": "a" * (MAX_QUERY_BYTES + 1)}, "invalid_value", "query"),
    ({"documents": []}, "invalid_value", "documents"),
    ({"documents": "a"}, "invalid_type", "documents"),
    ({"documents": [1]}, "invalid_type", "documents[0]"),
    ({"documents": ["a"] * (MAX_DOCUMENTS + 1)}, "invalid_value", "documents"),
    ({"documents": ["a", {"title": "b"}]}, "invalid_value", "documents[1]"),
    ({"documents": [{"text": 5}]}, "invalid_value", "documents[0].text"),
    ({"documents": [{"image": "x"}]}, "invalid_value", "documents[0]"),
    ({"top_n": -1}, "invalid_value", "top_n"),
    ({"max_tokens_per_doc": 0}, "invalid_value", "max_tokens_per_doc"),
    ({"truncate_prompt_tokens": -2}, "invalid_value", "truncate_prompt_tokens"),
    ({"model": ""}, "invalid_value", "model"),
    ({"quary": "a"}, "unknown_parameter", "quary"),
    ({"user": "a\0"}, "invalid_value", "user"),
]


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED)
def test_rerank_with_a_wrong_field_is_refused(fields, code, param):
    with pytest.raises(InvalidRequestError) as found:
        parsed(**fields)
    assert (found.value.code, found.value.param) == (code, param)


def test_documents_are_texts_or_objects_with_chosen_fields():
    documents = ["a", {"text": "b", "title": "t", "id": 7}]
    assert parsed(documents=documents).texts() == ["a", "b"]
    assert parsed(documents=documents, rank_fields=["title", "text"]).texts() == ["a", "t\nb"]
    assert parsed(documents=[{"text": "b"}], rank_fields=["title", "text"]).texts() == ["b"]


def test_fields_without_effect_are_named():
    ignored = IgnoredFields()
    body = {"model": "m", "query": "q", "documents": ["a"], "max_chunks_per_doc": 10, "instruction": "x"}
    parse_rerank_request(json.dumps(body).encode(), ignored)
    assert ignored.header_value() == "instruction, max_chunks_per_doc"


def test_pair_limit_is_the_least_of_the_models_and_the_callers():
    assert parsed().max_pair_tokens(512) == 512
    assert parsed(truncate_prompt_tokens=-1).max_pair_tokens(512) == 512
    assert parsed(truncate_prompt_tokens=100).max_pair_tokens(512) == 100
    assert parsed(truncate_prompt_tokens=1000).max_pair_tokens(512) == 512


@pytest.mark.parametrize("wanted", ["", [], ["a", ""], ["a"] * 2049])
def test_classify_with_an_empty_or_long_input_is_refused(wanted):
    with pytest.raises(InvalidRequestError) as found:
        parse_classify_request(json.dumps({"model": "m", "input": wanted}).encode())
    assert found.value.param == "input"
