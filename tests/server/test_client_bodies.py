"""Whole bodies of coding agents over HTTP, on chat templates that differ in what they take: real parsers, templates,
grammars and ledger, a model of bytes."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from tests.serving import provider as providers
from tests.serving.provider import PRICED, FakeModel, Provider, running_provider

pytestmark = pytest.mark.anyio

_TURN = "<|begin|>{{ m.role }}\n{{ m.content }}<|end|>"
_ANSWER = "<|begin|>assistant:"
TEMPLATES = {
    "without tools": "{% for m in messages %}" + _TURN + "{% endfor %}" + _ANSWER,
    "strict": (
        "{% set ns = namespace(is_users=true) %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% if not loop.first %}{{ raise_exception('system first') }}{% endif %}"
        "{% elif (m.role == 'user') != ns.is_users %}{{ raise_exception('roles must alternate') }}"
        "{% else %}{% set ns.is_users = not ns.is_users %}{% endif %}" + _TURN + "{% endfor %}" + _ANSWER
    ),
    "without system": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + _TURN
        + "{% endfor %}"
        + _ANSWER
    ),
    "thinking": (
        "{% if tools %}<|begin|>system\n{{ tools | tojson }}<tool_call></tool_call><|end|>{% endif %}"
        "{% for m in messages %}"
        + _TURN
        + "{% endfor %}"
        + _ANSWER
        + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    ),
}
PATH = {"type": "object", "properties": {"path": {"type": "string", "maxLength": 40}}, "required": ["path"]}
SERVER_TOOL = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}


@pytest.fixture(params=TEMPLATES)
async def provider(request, tmp_path, monkeypatch) -> AsyncIterator[Provider]:
    """One for each template."""
    monkeypatch.setattr(providers, "MAX_CONTEXT", 4096)
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, TEMPLATES[request.param]))
    async with running_provider(tmp_path, monkeypatch) as provider:
        yield provider


async def answered(provider: Provider, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to `body`; the stream of the same has to end well, too."""
    streamed = await provider.client.post(path, json=body | {"stream": True})
    assert streamed.status_code == 200, streamed.text
    assert "error" not in [line.removeprefix("event: ") for line in streamed.text.splitlines()]
    assert '"error":{' not in streamed.text
    assert "response.failed" not in streamed.text
    whole = await provider.client.post(path, json=body)
    assert whole.status_code == 200, whole.text
    return dict(whole.json())


async def test_body_of_codex_is_answered(provider):
    items = [
        {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
        for role, text in [("developer", "Sandbox: read-only."), ("user", "<environment>"), ("user", "Say: ready")]
    ]
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    items += [
        {"type": "function_call", "call_id": "c", "name": "view_image", "arguments": '{"path": "a.png"}'},
        {"type": "function_call_output", "call_id": "c", "output": [picture]},
    ]
    body = {
        "model": PRICED,
        "instructions": "You are a coding agent.",
        "input": items,
        "max_output_tokens": 4,
        "tools": [
            {"type": "function", "name": "view_image", "strict": False, "parameters": PATH},
            {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark"}},
            {"type": "web_search", "external_web_access": False},
            {"type": "namespace", "name": "mcp__notes", "description": "", "tools": []},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
        "text": {"verbosity": "low"},
        "client_metadata": {"x-installation-id": "0"},
    }
    assert (await answered(provider, "/v1/responses", body))["usage"]["output_tokens"] == 4


async def test_body_of_claude_code_is_answered_and_counted(provider):
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    body = {
        "model": PRICED,
        "max_tokens": 4,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197;"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ],
        "messages": [
            {"role": "user", "content": "Open a.png"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read", "input": {"path": "a"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [picture]}]},
            {"role": "system", "content": "Reminder."},
            {"role": "user", "content": "Go on"},
        ],
        "tools": [{"name": "Read", "input_schema": PATH}, SERVER_TOOL],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": "session"},
    }
    usage = (await answered(provider, "/v1/messages", body))["usage"]
    counted = (await provider.client.post("/v1/messages/count_tokens", json=body)).json()
    assert counted["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


async def test_forced_server_tool_is_answered_with_text(provider):
    """Claude Code asks so for a web search."""
    forced = {"type": "tool", "name": "web_search"}
    body = {"model": PRICED, "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
    answer = await answered(provider, "/v1/messages", body | {"tools": [SERVER_TOOL], "tool_choice": forced})
    assert [block["type"] for block in answer["content"]] == ["text"]


async def test_call_that_the_limit_cut_is_taken_back_by_each_api(provider):
    asked = [{"role": "user", "content": "Open a.txt"}]
    tools = [{"type": "function", "function": {"name": "open", "parameters": PATH}}]
    chat = {"model": PRICED, "max_tokens": 50, "reasoning_effort": "none", "tools": tools, "tool_choice": "required"}
    (choice,) = (await answered(provider, "/v1/chat/completions", chat | {"messages": asked}))["choices"]
    assert choice["finish_reason"] == "length"
    (call,) = choice["message"]["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "no JSON"}
    messages = [*asked, choice["message"], result]
    await answered(provider, "/v1/chat/completions", chat | {"messages": messages, "max_tokens": 4})

    own = {"model": PRICED, "max_output_tokens": 50, "reasoning": {"effort": "none"}, "tool_choice": "required"}
    own["tools"] = [{"type": "function", "name": "open", "parameters": PATH}]
    output = (await answered(provider, "/v1/responses", own | {"input": asked}))["output"]
    (call,) = [item for item in output if item["type"] == "function_call"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "no JSON"}
    await answered(provider, "/v1/responses", own | {"input": [*asked, *output, result], "max_output_tokens": 4})

    own = {"model": PRICED, "max_tokens": 50, "thinking": {"type": "disabled"}, "tool_choice": {"type": "any"}}
    own["tools"] = [{"name": "open", "input_schema": PATH}]
    content = (await answered(provider, "/v1/messages", own | {"messages": asked}))["content"]
    (call,) = [block for block in content if block["type"] == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "no JSON"}
    turns = [*asked, {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    await answered(provider, "/v1/messages", own | {"messages": turns, "max_tokens": 4})


@pytest.mark.parametrize("n_schemas", [1, 16])
async def test_new_schemas_of_sixteen_requests_at_once_are_all_compiled(tmp_path, monkeypatch, n_schemas):
    statuses: list[int] = []

    async def ask(provider: Provider, number: int) -> None:
        schema = {"type": "object", "properties": {f"p{number % n_schemas}": {"type": "string", "maxLength": 9}}}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        statuses.append((await provider.chat(response_format=form, max_tokens=4)).status_code)

    async with running_provider(tmp_path, monkeypatch) as provider, anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(ask, provider, number)
    assert statuses == [200] * 16
