"""Answers that continue the last message of a chat."""

from __future__ import annotations

import json

import pytest

from inferd.errors import InvalidRequestError
from inferd.wire.openai.chat_request import parse_chat_request

BEGUN = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "The answer is "}]
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": BEGUN[:1]}, "continue_final_message"),
        ({"messages": [BEGUN[0], {"role": "assistant", "content": ""}]}, "continue_final_message"),
        ({"continue_final_message": "reasoning_content"}, "continue_final_message"),
        ({"add_generation_prompt": True}, "add_generation_prompt"),
        ({"response_format": {"type": "json_object"}}, "response_format.schema"),
        ({"json_schema": {"type": "object"}}, "json_schema"),
        ({"guided_json": {"type": "object"}}, "guided_json"),
        ({"tools": [FUNCTION], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ],
)
def test_continuation_that_makes_no_sense_is_refused(fields, param):
    body = {"model": "o/d", "messages": BEGUN, "continue_final_message": True} | fields
    with pytest.raises(InvalidRequestError) as caught:
        parse_chat_request(json.dumps(body).encode())
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"continue_final_message": True, "add_generation_prompt": False},
        {"continue_final_message": "content", "guided_choice": ["a", "b"]},
        {"continue_final_message": True, "tools": [FUNCTION]},
    ],
)
def test_continuation_may_have_tools_and_a_grammar_of_the_rest(fields):
    assert parse_chat_request(json.dumps({"model": "o/d", "messages": BEGUN} | fields).encode()).continues
