"""The field of an answer that shows reasoning: chosen by the caller, else by the operator."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.serving import provider as providers
from tests.serving.provider import PRICED, TEMPLATE, chat_body, running_provider

pytestmark = pytest.mark.anyio

ANSWER = b"<think>\nhm\n</think>\n\nyes"
THINKS = TEMPLATE + "{# <think> </think> #}{% if enable_thinking is defined and not enable_thinking %}{% endif %}"


@pytest.fixture
async def thinker(tmp_path, monkeypatch):
    monkeypatch.setattr(providers.FakeModel.__init__, "__defaults__", (THINKS,))

    def make_runner(**options: Any) -> providers.PacedRunner:
        return providers.PacedRunner(answer=ANSWER, **options)

    async with running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider:
        yield provider


async def shown(provider, **fields: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts of the whole message and of a stream's deltas, by field."""
    body = chat_body(max_tokens=60) | fields
    message = (await provider.client.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]
    whole = {name: message[name] for name in ("reasoning_content", "reasoning", "content") if name in message}
    stream = await provider.client.post("/v1/chat/completions", json=body | {"stream": True})
    streamed: dict[str, str] = {}
    for line in stream.text.splitlines():
        if line.startswith("data: {"):
            for name, text in json.loads(line[6:])["choices"][0]["delta"].items():
                streamed[name] = streamed.get(name, "") + text
    streamed.pop("role")
    return whole, streamed


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["reasoning_content"]),
        ({"reasoning_format": "auto"}, ["reasoning_content"]),
        ({"reasoning_format": "deepseek"}, ["reasoning_content"]),
        ({"reasoning_format": "parsed"}, ["reasoning"]),
        ({"reasoning_format": "both"}, ["reasoning_content", "reasoning"]),
        ({"reasoning_format": "hidden"}, []),
        ({"include_reasoning": False}, []),
        ({"include_reasoning": True}, ["reasoning_content"]),
        ({"reasoning": {"exclude": True}}, []),
        ({"reasoning": {"exclude": False, "max_tokens": 5}}, ["reasoning_content"]),
    ],
)
async def test_caller_chooses_the_field_of_reasoning_in_answers_and_streams(thinker, fields, names):
    whole, streamed = await shown(thinker, **fields)
    assert whole == streamed == dict.fromkeys(names, "hm") | {"content": "yes"}


@pytest.mark.parametrize(
    ("field", "fields", "names"),
    [
        ("both", {}, ["reasoning_content", "reasoning"]),
        ("reasoning", {"reasoning_format": "auto"}, ["reasoning"]),
        ("reasoning", {"reasoning_format": "deepseek"}, ["reasoning_content"]),
        ("both", {"reasoning_format": "hidden"}, []),
    ],
)
async def test_operator_chooses_the_field_for_callers_who_do_not(thinker, field, fields, names):
    deployments = thinker.router._deployments
    deployments[PRICED] = replace(deployments[PRICED], reasoning_field=field)
    whole, streamed = await shown(thinker, **fields)
    assert whole == streamed == dict.fromkeys(names, "hm") | {"content": "yes"}


async def test_hidden_reasoning_is_billed(thinker):
    bills = []
    for fields in ({}, {"reasoning_format": "hidden"}):
        answer = await thinker.client.post("/v1/chat/completions", json=chat_body(max_tokens=60) | fields)
        bills.append(answer.json()["usage"]["completion_tokens"])
    assert bills == [len(ANSWER) + 1] * 2


async def test_unknown_reasoning_format_is_named_as_ignored(provider):
    answer = await provider.client.post("/v1/chat/completions", json=chat_body(max_tokens=2, reasoning_format="raw"))
    assert (answer.status_code, answer.headers["inferd-ignored"]) == (200, "reasoning_format")
