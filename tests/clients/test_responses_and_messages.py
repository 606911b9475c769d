"""The official clients of the Responses API and of the Messages API, on a real model."""

from __future__ import annotations

import json

import anthropic
import jsonschema
import openai
import pytest

from tests.clients.conftest import MODEL, WEATHER

ASK = "What is the weather in Paris?"


@pytest.fixture(scope="module")
def responses(team):
    with openai.OpenAI(base_url=team.server.base_url, api_key=team.key, max_retries=0) as client:
        yield client.responses


@pytest.fixture(scope="module")
def messages(team):
    base_url = team.server.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base_url, api_key=team.key, max_retries=0) as client:
        yield client.messages


def test_a_response_and_its_stream_with_a_tool(responses):
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    asked = {"model": MODEL, "input": ASK, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    called = responses.create(**asked, max_output_tokens=200)
    (call,) = called.output
    jsonschema.validate(json.loads(call.arguments), WEATHER)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
    history = [{"role": "user", "content": ASK}, call.to_dict(), output]
    with responses.stream(model=MODEL, input=history, max_output_tokens=12) as stream:
        kinds = {event.type for event in stream}
    assert "response.output_text.delta" in kinds


def test_a_message_and_its_stream_with_a_tool(messages):
    tools = [{"name": "get_weather", "input_schema": WEATHER, "strict": True}]
    turns = [{"role": "user", "content": ASK}]
    once = {"type": "any", "disable_parallel_tool_use": True}
    called = messages.create(model=MODEL, max_tokens=200, messages=turns, tools=tools, tool_choice=once)
    (call,) = called.content
    jsonschema.validate(call.input, WEATHER)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}
    turns += [called.to_param(), {"role": "user", "content": [result]}]
    counted = messages.count_tokens(model=MODEL, messages=turns, tools=tools)
    with messages.stream(model=MODEL, max_tokens=12, messages=turns, tools=tools) as stream:
        assert "".join(stream.text_stream) or stream.get_final_message().stop_reason == "tool_use"
        usage = stream.get_final_message().usage
    assert usage.input_tokens + usage.cache_read_input_tokens == counted.input_tokens
