"""The chat request that a message's body comes to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.anthropic.requests import UNSUPPORTED, parse_count_tokens_request, parse_messages_request
from inferd.errors import InvalidRequestError
from inferd.openai.requests import ChatRequest, parse_chat_request

SCHEMA = {"type": "object", "properties": {}}
NO = {"type": "text", "text": "no"}
HI = [{"role": "user", "content": "Hi"}]


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "o/d", "max_tokens": 9, "messages": HI, **fields}
    return parse_messages_request(json.dumps(body).encode())[0]


def test_every_field_goes_where_it_belongs():
    asked = chat(
        system="Be brief.",
        stream=True,
        stop_sequences=["a", "b"],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        metadata={"user_id": "u"},
        service_tier="standard_only",
        tools=[{"name": "f", "description": "F.", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 5000},
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
    )
    body = {
        "model": "o/d",
        "messages": [{"role": "system", "content": "Be brief."}, *HI],
        "max_tokens": 9,
        "stream": True,
        "stop": ["a", "b"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "user": "u",
        "service_tier": "default",
        "tools": [{"type": "function", "function": {"name": "f", "description": "F.", "parameters": SCHEMA}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "medium",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": SCHEMA, "strict": True},
        },
    }
    assert asked == parse_chat_request(json.dumps(body).encode())


def test_blocks_become_messages():
    turns = [
        {"role": "user", "content": "7?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "Well."},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "content": [{"type": "text", "text": "no"}],
                    "is_error": True,
                },
                {"type": "text", "text": "So?"},
            ],
        },
        {"role": "user", "content": "And?"},
    ]
    user, turn, result, last = chat(messages=turns).messages
    assert user.text() == "7?"
    assert (turn.reasoning_content, turn.text()) == ("Hm.", "Well.")
    assert [(call.id, call.arguments()) for call in turn.tool_calls] == [("a", {"x": 1})]
    assert (result.role, result.tool_call_id, result.text()) == ("tool", "a", "Error: no")
    assert (last.role, last.text()) == ("user", "So?\nAnd?")


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_is_not_served_is_refused_by_name(field):
    with pytest.raises(InvalidRequestError) as raised:
        chat(**{field: "y"})
    assert (raised.value.param, raised.value.code) == (field, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 20_000}}, "high"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "xhigh"),
    ],
)
def test_thinking_is_an_effort(fields, effort):
    assert chat(**fields).reasoning_effort == effort


def test_counting_takes_what_makes_the_prompt_and_nothing_else():
    body = {"model": "o/d", "messages": HI, "system": "Be brief."}
    counted, _ = parse_count_tokens_request(json.dumps(body).encode())
    assert counted.messages == chat(system="Be brief.").messages
    with pytest.raises(InvalidRequestError, match="max_tokens"):
        parse_count_tokens_request(json.dumps(body | {"max_tokens": 9}).encode())
