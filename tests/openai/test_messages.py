from __future__ import annotations

import json

import pytest

from inferd.errors import InvalidRequestError
from inferd.openai.requests import ChatRequest, parse_chat_request


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


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://internal/"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "refusal", "refusal": "no"},
        {"type": "video"},
    ],
)
def test_a_part_that_is_not_text_is_unsupported_content(part):
    error = refusal({"role": "user", "content": [{"type": "text", "text": "a"}, part]})
    assert (error.param, error.code) == ("messages[0].content[1]", "unsupported_content")
    assert part["type"] in error.message


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "function", "content": "x", "name": "f"}, "messages[0].role"),
        ({"role": "assistant", "content": None, "function_call": {}}, "messages[0].function_call"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "messages[0].audio"),
        ({"role": "assistant", "refusal": "no"}, "messages[0].refusal"),
    ],
)
def test_what_a_message_cannot_hold_here_is_refused_by_name(message, param):
    error = refusal(message)
    assert (error.param, error.code) == (param, "unsupported_parameter")


def test_an_answer_can_be_sent_back_as_the_sdk_dumps_it():
    answer = {"role": "assistant", "content": "hi", "refusal": None, "annotations": None, "audio": None}
    answer |= {"function_call": None, "tool_calls": None}
    assert parse(answer).messages[0].text() == "hi"
