"""Tools and reasoning over HTTP, in OpenAI's shapes: real parser, grammar and engine, a model of bytes."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.serving import provider as providers
from tests.serving.provider import PRICED, TEMPLATE, FakeModel, PacedRunner, running_provider

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "sign": {"enum": ["+", "-"]}},
    "required": ["a", "sign"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA}}]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 7, "sign": "+"}}\n</tool_call>'
THOUGHT = "<think>\nHm.\n</think>\n\nYes."
THINKING = TEMPLATE + "{# <think></think> #}"
SWITCHED = TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


@pytest.fixture
def roomy(monkeypatch):
    """One token is a byte here, and the description of tools has hundreds of bytes."""
    monkeypatch.setattr(providers, "MAX_CONTEXT", 4096)


def saying(text: str) -> Any:
    return functools.partial(PacedRunner, answer=text.encode())


async def chunks_of(provider: Any, **fields: Any) -> list[dict[str, Any]]:
    response = await provider.chat(stream=True, **fields)
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


async def test_whole_answer_holds_the_call(tmp_path, monkeypatch, roomy):
    async with running_provider(tmp_path, monkeypatch, make_runner=saying(f"Well.\n{CALL}")) as provider:
        body = (await provider.chat(tools=TOOLS, max_tokens=200)).json()
    ChatCompletion.model_validate(body, strict=True)
    (choice,) = body["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Well.")
    assert (call["type"], call["function"]) == ("function", {"name": "add", "arguments": '{"a": 7, "sign": "+"}'})


async def test_streamed_call_has_its_name_first_and_its_arguments_in_pieces(tmp_path, monkeypatch, roomy):
    async with running_provider(tmp_path, monkeypatch, make_runner=saying(CALL)) as provider:
        chunks = await chunks_of(provider, tools=TOOLS, max_tokens=200)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    first, *more = [part for delta in deltas for part in delta.get("tool_calls", ())]
    assert first == {
        "index": 0,
        "id": first["id"],
        "type": "function",
        "function": {"name": "add", "arguments": ""},
    }
    assert all(set(part) == {"index", "function"} and set(part["function"]) == {"arguments"} for part in more)
    assert len(more) > 3
    assert "".join(part["function"]["arguments"] for part in more) == '{"a": 7, "sign": "+"}'
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "tool_calls"
    assert not any(delta.get("content") for delta in deltas)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
async def test_required_call_is_made_against_the_models_choice(tmp_path, monkeypatch, roomy, choice):
    async with running_provider(tmp_path, monkeypatch, make_runner=saying("I'd rather not. " * 20)) as provider:
        body = (await provider.chat(tools=TOOLS, tool_choice=choice, max_tokens=300)).json()
    (answer,) = body["choices"]
    call = answer["message"]["tool_calls"][0]
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
    assert answer["message"]["content"] is None


async def test_begun_call_is_completed(tmp_path, monkeypatch, roomy):
    text = '<tool_call>\n{"name": "subtract", "arguments": {"a": "seven"}}'
    async with running_provider(tmp_path, monkeypatch, make_runner=saying(text)) as provider:
        body = (await provider.chat(tools=TOOLS, max_tokens=300)).json()
    call = body["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["name"] == "add"
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)


async def test_call_without_tools_is_text(tmp_path, monkeypatch, roomy):
    async with running_provider(tmp_path, monkeypatch, make_runner=saying(CALL)) as provider:
        plain = (await provider.chat(max_tokens=200)).json()
        none = (await provider.chat(tools=TOOLS, tool_choice="none", max_tokens=200)).json()
    for body in (plain, none):
        assert body["choices"][0]["message"]["content"] == CALL
        assert "tool_calls" not in body["choices"][0]["message"]
        assert body["choices"][0]["finish_reason"] == "stop"
        assert "completion_tokens_details" not in body["usage"]


async def test_reasoning_is_separated_and_counted(tmp_path, monkeypatch, roomy):
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, THINKING))
    async with running_provider(tmp_path, monkeypatch, make_runner=saying(THOUGHT)) as provider:
        body = (await provider.chat(max_tokens=200)).json()
        chunks = await chunks_of(provider, max_tokens=200, stream_options={"include_usage": True})
    message = body["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Yes.")
    n_reasoning = len("\nHm.\n</think>") + 1  # the byte that completes <think> included
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": n_reasoning}
    assert chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": n_reasoning}
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm."
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes."


async def test_response_format_leaves_the_reasoning_free(tmp_path, monkeypatch, roomy):
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, THINKING))
    schema = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    async with running_provider(tmp_path, monkeypatch, make_runner=saying(THOUGHT)) as provider:
        message = (await provider.chat(max_tokens=200, response_format=schema)).json()["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm."
    jsonschema.validate(json.loads(message["content"]), SCHEMA)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"reasoning_effort": "none", "tool_choice": "required"}),
        ("/v1/chat/completions", {"chat_template_kwargs": {"enable_thinking": False}, "tool_choice": "required"}),
        ("/v1/chat/completions", {"reasoning_effort": "none"}),
        ("/v1/responses", {"reasoning": {"effort": "none"}, "tool_choice": "required"}),
        ("/v1/messages", {"thinking": {"type": "disabled"}, "tool_choice": {"type": "any"}}),
    ],
)
async def test_reasoning_turned_off_is_excluded_by_the_grammar_in_every_api(tmp_path, monkeypatch, roomy, path, fields):
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, SWITCHED))
    async with running_provider(tmp_path, monkeypatch, make_runner=saying(THOUGHT)) as provider:
        message = {"role": "user", "content": "hi"}
        if path == "/v1/responses":
            asked = {"input": [message], "tools": [{"type": "function", **TOOLS[0]["function"]}]}
            asked["max_output_tokens"] = 200
        elif path == "/v1/messages":
            tool = {"name": "add", "input_schema": SCHEMA}
            asked = {"messages": [message], "tools": [tool], "max_tokens": 200}
        else:
            asked = {"messages": [message], "tools": TOOLS, "max_tokens": 200}
        answer = (await provider.client.post(path, json={"model": PRICED, **asked, **fields})).text
    for reasoning in ("<think>", '"reasoning_content"', '"type":"reasoning"', '"type":"thinking"'):
        assert reasoning not in answer
    assert ('"add"' in answer) == ("tool_choice" in fields)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": TOOLS, "grammar": 'start: "x"'}, "grammar", "invalid_value"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]},
            "tools[0].function.parameters.not",
            "invalid_json_schema",
        ),
    ],
)
async def test_unsupported_tools_are_refused_by_name(tmp_path, monkeypatch, roomy, fields, param, code):
    async with running_provider(tmp_path, monkeypatch) as provider:
        response = await provider.chat(**fields)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
