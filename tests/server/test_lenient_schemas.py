"""Schemas that cannot be enforced whole, over HTTP: left out without `strict`, refused by path with it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from tests.serving import provider as providers
from tests.serving.provider import PRICED, running_provider

pytestmark = pytest.mark.anyio

LOOKAHEAD = {"type": "string", "pattern": r"^(?!\.)[a-z]", "maxLength": 4}
MEMBERS: dict[str, dict[str, Any]] = {
    "a look-ahead": LOOKAHEAD,
    "an invalid pattern": {"type": "string", "pattern": "[", "maxLength": 4},
    "int64's bounds": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "a dangling reference": {"$ref": "#/components/schemas/X", "enum": ["a"]},
    "unknown keywords": {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b"]}, "maxItems": 2},
    "overlapping branches": {"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}], "not": {"const": 1}},
    "branches that exclude each other": {"allOf": [{"type": "string"}, {"type": "null"}]},
    "an unsatisfiable enum": {"type": "string", "enum": ["a"], "pattern": "^b$"},
}
ENDLESS = {"$ref": "#"}


def object_with(member: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"t": member}, "required": ["t"], "additionalProperties": False}


def requests_with(member: dict[str, Any], *, strict: bool | None = None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return (path, body) of a request for each field that takes a schema."""
    schema = object_with(member)
    function = {"name": "b", "parameters": schema} | ({} if strict is None else {"strict": strict})
    named = {"name": "x", "schema": schema} | ({} if strict is None else {"strict": strict})
    messages = [{"role": "user", "content": "hi"}]
    chat = {"model": PRICED, "messages": messages, "max_tokens": 60}
    chat_tools = chat | {"tools": [{"type": "function", "function": function}]}
    responses = {"model": PRICED, "input": "hi", "max_output_tokens": 60}
    anthropic = {"name": "b", "input_schema": schema} | ({} if strict is None else {"strict": strict})
    found = {
        "auto": ("/v1/chat/completions", chat_tools),
        "required": ("/v1/chat/completions", chat_tools | {"tool_choice": "required"}),
        "named": (
            "/v1/chat/completions",
            chat_tools | {"tool_choice": {"type": "function", "function": {"name": "b"}}},
        ),
        "response_format": (
            "/v1/chat/completions",
            chat | {"response_format": {"type": "json_schema", "json_schema": named}},
        ),
        "responses tool": (
            "/v1/responses",
            responses | {"tools": [{"type": "function", **function}], "tool_choice": "required"},
        ),
        "responses format": (
            "/v1/responses",
            responses | {"text": {"format": {"type": "json_schema", **named}}},
        ),
        "messages tool": ("/v1/messages", chat | {"tools": [anthropic], "tool_choice": {"type": "any"}}),
    }
    if strict is None:
        found["json_object"] = (
            "/v1/chat/completions",
            chat | {"response_format": {"type": "json_object", "schema": schema}},
        )
    return found


@pytest.fixture
def roomy(monkeypatch):
    monkeypatch.setattr(providers, "MAX_CONTEXT", 4096)


async def test_schema_without_strict_is_accepted_in_every_field(tmp_path, monkeypatch, roomy):
    async with running_provider(tmp_path, monkeypatch) as provider:
        for name, member in MEMBERS.items():
            for place, (path, body) in requests_with(member).items():
                response = await provider.client.post(path, json=body)
                assert response.status_code == 200, (name, place, response.text)


async def test_enforceable_keywords_hold_beside_unenforceable_ones(tmp_path, monkeypatch, roomy):
    member = {"type": "integer", "minimum": 3, "maximum": 5, "not": {"const": 4}}
    async with running_provider(tmp_path, monkeypatch) as provider:
        (path, body) = requests_with(member)["required"]
        (choice,) = (await provider.client.post(path, json=body)).json()["choices"]
    arguments = json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])
    jsonschema.validate(arguments, object_with({"type": "integer", "minimum": 3, "maximum": 5}))


@pytest.mark.parametrize(
    ("place", "param"),
    [
        ("auto", "tools[0].function.parameters.properties.t.pattern"),
        ("required", "tools[0].function.parameters.properties.t.pattern"),
        ("response_format", "response_format.json_schema.schema.properties.t.pattern"),
        ("responses tool", "tools[0].parameters.properties.t.pattern"),
        ("responses format", "text.format.schema.properties.t.pattern"),
        ("messages tool", "tools[0].input_schema.properties.t.pattern"),
    ],
)
async def test_strict_schema_is_refused_by_the_path_of_its_fault(tmp_path, monkeypatch, roomy, place, param):
    async with running_provider(tmp_path, monkeypatch) as provider:
        path, body = requests_with(LOOKAHEAD, strict=True)[place]
        response = await provider.client.post(path, json=body)
        assert provider.rows("holds") == []
    error = response.json()["error"]
    assert response.status_code == 400
    assert error.get("param", param) == param
    assert f"'{param}' has a look-around" in error["message"]


async def test_strict_schema_that_only_the_compiler_refuses_is_named(tmp_path, monkeypatch, roomy):
    async with running_provider(tmp_path, monkeypatch) as provider:
        path, body = requests_with(MEMBERS["an unsatisfiable enum"], strict=True)["required"]
        body["tools"].insert(0, {"type": "function", "function": {"name": "a", "parameters": object_with({})}})
        response = await provider.client.post(path, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "tools[1].function.parameters")
    assert "unsatisfiable" in error["message"]
    assert "call_0" not in error["message"]


@pytest.mark.parametrize(
    "member", [ENDLESS, {"type": "array", "minItems": 1, "items": ENDLESS}, {"allOf": [ENDLESS]}], ids=str
)
async def test_endless_schema_is_a_400_if_it_would_be_enforced(tmp_path, monkeypatch, roomy, member):
    strict = requests_with(member, strict=True)
    lenient = requests_with(member)
    async with running_provider(tmp_path, monkeypatch) as provider:
        for path, body in (*strict.values(), *(lenient[place] for place in ("required", "named", "messages tool"))):
            response = await provider.client.post(path, json=body)
            assert response.status_code == 400, response.text
            assert "no finite value" in response.json()["error"]["message"]
        for place in ("auto", "response_format", "json_object"):
            path, body = lenient[place]
            assert (await provider.client.post(path, json=body)).status_code == 200, place
