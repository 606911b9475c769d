"""Structured output and logprobs over HTTP, in OpenAI's shapes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.fakes import FakeRunner
from tests.serving.provider import PRICED, prompt_of

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}


def format_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


async def test_answer_fits_its_schema_streamed_and_whole(provider):
    body = (await provider.chat(response_format=format_of(SCHEMA), max_tokens=60)).json()
    assert json.loads(body["choices"][0]["message"]["content"])["a"] in ("x", "y")
    assert body["choices"][0]["finish_reason"] == "stop"
    streamed = await provider.chat(response_format=format_of(SCHEMA), max_tokens=60, stream=True)
    chunks = events(streamed.text)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == body["choices"][0]["message"]["content"]
    assert body["usage"]["completion_tokens"] == len(text), "forced tokens are billed as others are"


async def test_unenforceable_constraint_is_a_400_before_a_hold(provider):
    response = await provider.chat(response_format=format_of({"type": "array", "uniqueItems": True}))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "invalid_json_schema"
    assert error["param"] == "response_format.json_schema.schema.uniqueItems"
    assert "uniqueItems" in error["message"]
    assert provider.rows("holds") == []
    response = await provider.chat(grammar="start: (")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_grammar")


async def test_answer_matches_its_grammar(provider):
    body = (await provider.chat(grammar='root ::= "yes" | "no"')).json()
    assert body["choices"][0]["message"]["content"] in ("yes", "no")


async def test_text_cut_inside_a_character_ends_before_it_in_every_api(provider):
    schema = {"const": "é😀"}
    chat = {"response_format": format_of(schema), "max_tokens": 6, "logprobs": True}
    body = (await provider.chat(**chat)).json()
    assert body["choices"][0]["message"]["content"] == '"é'
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 6
    pieces = [entry["bytes"] for entry in body["choices"][0]["logprobs"]["content"]]
    assert bytes(byte for piece in pieces for byte in piece) == '"é😀'.encode()[:6]
    chunks = events((await provider.chat(**chat, stream=True)).text)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == '"é'

    limits = {"model": PRICED, "max_output_tokens": 6}
    text = {"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": schema}}
    answer = (await provider.client.post("/v1/responses", json={**limits, "input": "hi", "text": text})).json()
    assert (answer["status"], answer["output"][0]["content"][0]["text"]) == ("incomplete", '"é')

    asked = {"model": PRICED, "max_tokens": 6, "messages": [{"role": "user", "content": "hi"}]}
    asked["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    answer = (await provider.client.post("/v1/messages", json=asked)).json()
    assert (answer["stop_reason"], answer["content"][0]["text"]) == ("max_tokens", '"é')


async def test_logprobs_have_openais_shape_whole_and_streamed(provider):
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 3}
    choice = (await provider.chat(**asked)).json()["choices"][0]
    expected = FakeRunner.continuation(prompt_of(), 3)
    content = choice["logprobs"]["content"]
    assert [entry["token"] for entry in content] == [chr(byte) for byte in expected]
    assert [entry["bytes"] for entry in content] == [[byte] for byte in expected]
    for entry in content:
        assert [set(top) for top in entry["top_logprobs"]] == [{"token", "logprob", "bytes"}] * 2
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"]
        assert 0 < math.exp(entry["logprob"]) <= 1
    chunks = events((await provider.chat(**asked, stream=True)).text)
    streamed = [entry for chunk in chunks for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert streamed == content


async def test_top_logprobs_without_logprobs_are_ignored(provider):
    response = await provider.chat(top_logprobs=2)
    assert (response.status_code, response.headers["inferd-ignored"]) == (200, "top_logprobs")
    response = await provider.chat(logprobs=True, top_logprobs=21)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "top_logprobs")
    assert (await provider.chat()).json()["choices"][0]["logprobs"] is None


def events(text: str) -> list[dict[str, Any]]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]
