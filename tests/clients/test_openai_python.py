"""openai, the official Python client."""

from __future__ import annotations

import json
from typing import Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.clients.conftest import MODEL, WEATHER

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": WEATHER},
}
OTHER = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}


class Verdict(BaseModel):
    mood: Literal["good", "bad"]
    score: int = Field(ge=0, le=9)


@pytest.fixture(scope="module")
def client(team):
    with openai.OpenAI(base_url=team.server.base_url, api_key=team.key, max_retries=0) as client:
        yield client


def test_chat_and_stream(client):
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message
    assert whole.content
    assert whole.tool_calls is None
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].usage.completion_tokens <= 12


def test_three_choices_whole_and_streamed(client):
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 12, "n": 3, "seed": 5}
    whole = client.chat.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert all(choice.message.content and choice.finish_reason in ("stop", "length") for choice in whole.choices)
    assert len({choice.message.content for choice in whole.choices}) == 3, "each has a seed of its own"
    alone = client.chat.completions.create(**asked | {"n": 1})
    assert whole.usage.prompt_tokens == alone.usage.prompt_tokens
    assert alone.usage.completion_tokens < whole.usage.completion_tokens <= 36

    texts, reasons = ["", "", ""], {}
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert all(texts)
    assert set(reasons) == {0, 1, 2}
    assert chunk.choices == []
    assert chunk.usage.prompt_tokens == alone.usage.prompt_tokens
    assert chunk.usage.completion_tokens <= 36


def test_a_tool_round(client):
    one = {"tool_choice": "required", "parallel_tool_calls": False}
    called = client.chat.completions.create(model=MODEL, messages=ASK, tools=[TOOL, OTHER], max_tokens=200, **one)
    (choice,) = called.choices
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content, call.type) == ("tool_calls", None, "function")
    if call.function.name == "get_weather":
        jsonschema.validate(json.loads(call.function.arguments), WEATHER)
    history = [*ASK, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees, sunny"}]
    answer = client.chat.completions.create(model=MODEL, messages=history, tools=[TOOL, OTHER], max_tokens=16)
    assert answer.usage.prompt_tokens > called.usage.prompt_tokens


def test_a_named_tool_streamed(client):
    named = {"type": "function", "function": {"name": "get_weather"}}
    with client.chat.completions.stream(
        model=MODEL, messages=ASK, tools=[TOOL, OTHER], tool_choice=named, max_tokens=200
    ) as stream:
        kinds = {event.type for event in stream}
        (choice,) = stream.get_final_completion().choices
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, call.function.name, call.id[:5]) == ("tool_calls", "get_weather", "call_")
    jsonschema.validate(json.loads(call.function.arguments), WEATHER)


def test_a_strict_tool_is_parsed(client):
    tool = openai.pydantic_function_tool(Verdict, name="judge", description="Judges.")
    done = client.chat.completions.parse(
        model=MODEL, messages=ASK, tools=[tool], tool_choice="required", parallel_tool_calls=False, max_tokens=100
    )
    (call,) = done.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Verdict)


def test_structured_output(client):
    asked = {"model": MODEL, "messages": ASK, "response_format": Verdict, "max_tokens": 100}
    assert isinstance(client.chat.completions.parse(**asked).choices[0].message.parsed, Verdict)
    with client.chat.completions.stream(**asked) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Verdict)


def test_errors_are_of_the_clients_own_classes(client, broke):
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=ASK, tools=[TOOL], tool_choice="always")
    assert (bad.value.param, bad.value.code) == ("tool_choice", "invalid_value")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="no/model", messages=ASK)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-inferd-wrong").chat.completions.create(model=MODEL, messages=ASK)
    with pytest.raises(openai.APIStatusError) as poor:
        client.with_options(api_key=broke.key).chat.completions.create(model=MODEL, messages=ASK)
    assert poor.value.status_code == 402
    unsupported = {"name": "x", "strict": True, "schema": {"type": "object", "properties": {"a": {"not": {}}}}}
    with pytest.raises(openai.BadRequestError) as schema:
        client.chat.completions.create(
            model=MODEL, messages=ASK, response_format={"type": "json_schema", "json_schema": unsupported}
        )
    assert schema.value.code == "invalid_json_schema"
