from __future__ import annotations

import json

import pytest

from inferd.errors import InvalidRequestError
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from inferd.wire.openai.messages import without_attribution


def parse(*messages: dict[str, object]) -> ChatRequest:
    return parse_chat_request(json.dumps({"model": "o/d", "messages": messages}).encode())


def refusal(*messages: dict[str, object]) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(*messages)
    return caught.value


def test_text_parts_are_joined_by_line_breaks():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = parse({"role": "system", "content": parts, "name": "ann"})
    assert (request.messages[0].text(), request.messages[0].name) == ("a\nb", "ann")


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
@pytest.mark.parametrize("content", [None, "", []])
def test_empty_content_is_an_empty_text_in_any_role(role, content):
    assert parse({"role": role, "content": content}).messages[0].text() == ""


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (
            {"type": "image_url", "image_url": {"url": "http://internal/"}},
            "[image omitted: this model reads text only]",
        ),
        ({"type": "video"}, "[video omitted: this model reads text only]"),
        ({"type": "input_text", "text": "b"}, "b"),
        ({"type": "refusal", "refusal": "no"}, "no"),
        ({"text": "b"}, "b"),
    ],
)
def test_part_of_any_type_becomes_text(part, text):
    request = parse({"role": "user", "content": [{"type": "text", "text": "a"}, part]})
    assert request.messages[0].text() == f"a\n{text}"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "function", "content": "x", "name": "f"}, "messages[0].role"),
        ({"role": "assistant", "content": None, "function_call": {}}, "messages[0].function_call"),
    ],
)
def test_unsupported_message_is_refused_by_name(message, param):
    error = refusal(message)
    assert (error.param, error.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"content": None}, ""),
        ({"content": []}, ""),
        ({}, ""),
        ({"content": "x", "name": "Jane Doe"}, ""),
        ({"content": "x", "parsed": {"a": 1}, "refusal": None, "annotations": []}, "messages[1].parsed"),
        ({"content": "x", "annotations": [{"type": "url_citation"}]}, "messages[1].annotations"),
        ({"content": "x", "audio": {"id": "a"}}, "messages[1].audio"),
        ({"content": "x", "provider_specific_fields": {}}, "messages[1].provider_specific_fields"),
        ({"content": "x", "reasoning_details": [{"text": "y"}]}, "messages[1].reasoning_details"),
        ({"content": "x", "reasoning": [1]}, "messages[1].reasoning"),
        ({"content": "x", "id": "m1", "cache_control": {}}, "messages[1].id, messages[1].cache_control"),
    ],
)
def test_history_of_other_servers_and_sdk_helpers_is_accepted(fields, ignored):
    user = {"role": "user", "content": "a"}
    record = IgnoredFields()
    body = {"model": "o/d", "messages": [user, {"role": "assistant", **fields}, user]}
    request = parse_chat_request(json.dumps(body).encode(), record)
    assert request.messages[1].text() == (fields.get("content") or "")
    assert record.header_value() == ignored


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_under_any_name_is_read(field):
    assert parse({"role": "assistant", "content": "x", field: "because"}).messages[0].reasoning_text() == "because"
    assert parse({"role": "user", "content": "x", field: "because"}).messages[0].reasoning_text() == ""


def test_refusal_without_content_is_the_text():
    assert parse({"role": "assistant", "content": None, "refusal": "no"}).messages[0].text() == "no"


@pytest.mark.parametrize(
    ("system", "left"),
    [
        ("x-anthropic-billing-header: cc_version=2.1.1; cch=1;\nBe brief.", ["Be brief.", "hi"]),
        ("x-anthropic-billing-header: cc_version=2.1.1;", ["hi"]),
        ("Be x-anthropic-billing-header: brief.", ["Be x-anthropic-billing-header: brief.", "hi"]),
    ],
)
def test_accounting_line_of_the_system_prompt_is_dropped(system, left):
    request = parse({"role": "system", "content": system}, {"role": "user", "content": "hi"})
    assert [message.text() for message in without_attribution(request.messages)] == left


def test_message_dumped_by_the_sdk_is_taken_back():
    answer = {"role": "assistant", "content": "hi", "refusal": None, "annotations": None, "audio": None}
    answer |= {"function_call": None, "tool_calls": None}
    assert parse(answer).messages[0].text() == "hi"
