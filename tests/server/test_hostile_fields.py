"""Hostile sizes and depths in the fields of every API but the chat's, over a real socket: each is a clear 4xx at once,
and the server is unharmed. Fields of the chat, and bodies that are wrong in any API: test_hostile_input.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.transport.test_server import served_on_socket
from tests.serving.provider import PRICED, chat_body

pytestmark = pytest.mark.anyio

LARGE = 40_000
HUGE = 10**30
TEXT = "a" * 2_000_000
USER = {"role": "user", "content": "hello"}
FUNCTION = {"type": "function", "name": "f"}


def deep(depth: int, kind: str = "properties") -> Any:
    """Return a schema with a given number of levels, fewer than json.dumps can write."""
    value: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        value = {"type": "object", "properties": {"a": value}} if kind == "properties" else {"anyOf": [value]}
    return value


def nested(depth: int) -> str:
    """Return JSON text of arrays with a given number of levels."""
    return "[" * depth + "]" * depth


RESPONSES: list[dict[str, Any]] = [
    {"input": [{"role": "user", "content": ""}] * LARGE},
    {"input": [{"role": "assistant", "content": ""}] * LARGE},
    {"input": [{"role": "user", "content": [{"type": "input_text", "text": ""}] * LARGE}]},
    {"input": [{"type": "reasoning", "summary": []}] * LARGE},
    {"input": [{"type": "function_call", "call_id": str(n), "name": "f", "arguments": ""} for n in range(LARGE // 2)]},
    {"input": [USER, {"type": "function_call", "call_id": "1", "name": "f", "arguments": nested(100_000)}]},
    {"input": [USER, {"type": "function_call", "call_id": "1", "name": "f", "arguments": f'{{"a": {nested(900)}}}'}]},
    {"input": [USER, {"type": "function_call_output", "call_id": "1", "output": TEXT}]},
    {"input": TEXT},
    {"instructions": TEXT},
    {"top_logprobs": HUGE},
    {"include": ["message.output_text.logprobs"] * LARGE, "top_logprobs": 21},
    {f"field_{n}": "x" for n in range(LARGE // 10)},
    {"tools": [{**FUNCTION, "name": f"f{n}"} for n in range(LARGE // 10)]},
    {"tools": [{**FUNCTION, "parameters": deep(300)}], "tool_choice": "required"},
    {"tools": [{**FUNCTION, "description": TEXT}]},
    {"tools": [{**FUNCTION, "parameters": {"type": "object", "properties": {"a": {"enum": ["x"] * LARGE}}}}]},
    {"text": {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": deep(300, "anyOf")}}},
    {"text": {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": {"enum": ["x" * 10] * LARGE}}}},
    {
        "text": {
            "format": {"type": "json_schema", "name": "x", "strict": True, "schema": {"$ref": "http://127.0.0.1:1/x"}}
        }
    },
    {"temperature": HUGE},
    {"user": "a" * LARGE},
]

MESSAGES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": ""}] * LARGE},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}] * (LARGE // 2) + [USER]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * LARGE}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}] * (LARGE // 2)},
    {"messages": [{"role": "user", "content": TEXT}]},
    {
        "messages": [
            USER,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": deep(300)}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": TEXT}]},
        ]
    },
    {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}] * LARGE}]},
    {"system": TEXT},
    {"system": [{"type": "text", "text": ""}] * LARGE},
    {"stop_sequences": ["a"] * LARGE},
    {"stop_sequences": ["a" * LARGE]},
    {"top_k": HUGE},
    {"temperature": HUGE},
    {"metadata": {"user_id": "a" * LARGE}},
    {"tools": [{"name": f"f{n}", "input_schema": {"type": "object"}} for n in range(LARGE // 10)]},
    {"tools": [{"name": "f", "input_schema": deep(300)}], "tool_choice": {"type": "any"}},
    {"tools": [{"name": "f", "input_schema": {"type": "object"}, "description": TEXT}]},
    {"output_config": {"format": {"type": "json_schema", "schema": deep(300, "anyOf")}}},
    {"output_config": {"format": {"type": "json_schema", "schema": {"enum": ["x" * 10] * LARGE}}}},
]

TOKENIZE: list[dict[str, Any]] = [
    {"content": TEXT},
    {"prompt": TEXT},
    {"messages": [{"role": "user", "content": TEXT}]},
    {"messages": [{"role": "user", "content": ""}] * LARGE},
    {"messages": []},
]

DETOKENIZE: list[dict[str, Any]] = [
    {"tokens": [1] * (2**20 + 1)},
    {"tokens": [HUGE]},
    {"tokens": [-1]},
    {"tokens": [[1]]},
]

BATCHES: list[dict[str, Any]] = [
    {"input_file_id": "a" * LARGE},
    {"endpoint": "/" * LARGE},
    {"completion_window": "9" * LARGE},
    {"metadata": {str(n): "x" for n in range(LARGE // 10)}},
    {"metadata": {"a": "x" * LARGE}},
    {"input_file_id": "../../etc/passwd"},
    {"input_file_id": "\0"},
]

USUAL: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": PRICED, "input": "hello", "max_output_tokens": 2},
    "/v1/messages": {"model": PRICED, "messages": [USER], "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": PRICED, "messages": [USER]},
    "/tokenize": {"model": PRICED},
    "/detokenize": {"model": PRICED, "tokens": [97]},
    "/v1/batches": {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
}
ABSURD = {
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": [body for body in MESSAGES if not set(body) - {"messages", "system", "tools"}],
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/v1/batches": BATCHES,
}


@pytest.fixture
async def served(provider):
    async with served_on_socket(provider) as served:
        yield served
        response = await served.client.post("/v1/chat/completions", json=chat_body(max_tokens=1))
        assert response.status_code == 200, "whatever was sent before, it serves"


@pytest.mark.parametrize("path", ABSURD)
async def test_hostile_body_is_answered_with_a_short_4xx(served, path):
    for fields in ABSURD[path]:
        response = await served.client.post(path, json=USUAL[path] | fields)
        told = (repr(fields)[:80], response.text[:300])
        assert response.status_code in (400, 404, 413), told
        assert len(response.text) < 2000, told
