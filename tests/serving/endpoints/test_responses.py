"""`POST /v1/responses` with OpenAI's own SDK on a real socket: all is real but the model, which is of bytes."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jsonschema
import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from inferd.money import format_usd
from tests.server.transport.test_server import served_on_socket
from tests.serving import provider as providers
from tests.serving.provider import PRICED, TEMPLATE, FakeModel, PacedRunner, Provider, running_provider

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [{"type": "function", "name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": True}]
CALL = 'Well.\n<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>'
THOUGHT = "<think>\nHm.\n</think>\n\nYes."


class Sum(BaseModel):
    a: int


@pytest.fixture
def roomy(monkeypatch):
    """A token is a byte here, and tools are described in hundreds of them."""
    monkeypatch.setattr(providers, "MAX_CONTEXT", 4096)


@asynccontextmanager
async def asked(tmp_path: Any, monkeypatch: Any, text: str) -> AsyncIterator[tuple[Provider, openai.AsyncOpenAI]]:
    """A provider whose model says `text`, on a socket, and the SDK that asks it."""
    make_runner = functools.partial(PacedRunner, answer=text.encode())
    async with (
        running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider,
        served_on_socket(provider) as served,
        openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{served.port}/v1", api_key=provider.key, max_retries=0
        ) as client,
    ):
        yield provider, client


def assert_usage_is_billed(usage: Any, row: dict[str, Any]) -> None:
    assert (usage.input_tokens, usage.output_tokens) == (row["prompt_tokens"], row["completion_tokens"])
    assert usage.input_tokens_details.cached_tokens == row["cached_tokens"]
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.cost == format_usd(row["cost_nanousd"])


async def test_whole_and_streamed_text_are_equal_and_billed_to_the_token(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, "Blue, they say.") as (provider, client):
        whole = await client.responses.create(model=PRICED, input="Why?", instructions="Be brief.", store=False)
        Response.model_validate(whole.model_dump(), strict=True)
        assert (whole.status, whole.output_text, whole.instructions) == ("completed", "Blue, they say.", "Be brief.")
        async with client.responses.stream(model=PRICED, input="Why?", instructions="Be brief.") as stream:
            events = [event async for event in stream]
            streamed = await stream.get_final_response()
        assert streamed.output_text == whole.output_text
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
        assert len([event for event in events if event.type == "response.output_text.delta"]) > 3
        assert events[-1].type == "response.completed"
        for answer, row in zip((whole, streamed), provider.rows("usage"), strict=True):
            assert_usage_is_billed(answer.usage, row)


async def test_tool_call_and_its_result_go_round(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, CALL) as (_, client):
        asks: dict[str, Any] = {"model": PRICED, "tools": TOOLS, "max_output_tokens": 300}
        async with client.responses.stream(input="7?", **asks) as stream:
            kinds = [event.type async for event in stream]
            streamed = await stream.get_final_response()
        whole = await client.responses.create(input="7?", **asks)
        for answer in (streamed, whole):
            message, call = answer.output
            assert (message.type, message.content[0].text, call.type, call.name) == (
                "message",
                "Well.",
                "function_call",
                "add",
            )
            jsonschema.validate(json.loads(call.arguments), SCHEMA)
        assert kinds.count("response.function_call_arguments.delta") > 3
        assert kinds.count("response.output_item.done") == 2
        result = {"type": "function_call_output", "call_id": whole.output[1].call_id, "output": "14"}
        history = [{"role": "user", "content": "7?"}, *(item.to_dict() for item in whole.output), result]
        again = await client.responses.create(input=history, **asks)
        assert again.usage.input_tokens > whole.usage.input_tokens
        chosen = {"type": "function", "name": "add"}
        named = await client.responses.create(input="7?", tool_choice=chosen, **asks)
        assert [item.type for item in named.output] == ["function_call"]


async def test_structured_output_is_parsed(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, "never in JSON " * 9) as (_, client):
        parsed = await client.responses.parse(model=PRICED, input="Sum?", text_format=Sum, max_output_tokens=60)
        assert parsed.text.format.type == "json_schema"
        if parsed.status == "completed":
            assert isinstance(parsed.output_parsed, Sum)


async def test_reasoning_is_an_item_and_can_be_sent_back(tmp_path, monkeypatch, roomy):
    thinking = TEMPLATE + "{# <think></think> #}"
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, thinking))
    async with asked(tmp_path, monkeypatch, THOUGHT) as (_, client):
        include: list[Any] = ["reasoning.encrypted_content"]
        whole = await client.responses.create(model=PRICED, input="Is it?", include=include, max_output_tokens=99)
        thought, message = whole.output
        assert (thought.type, thought.content[0].text, message.content[0].text) == ("reasoning", "Hm.", "Yes.")
        assert whole.usage.output_tokens_details.reasoning_tokens > 3
        async with client.responses.stream(model=PRICED, input="Is it?", max_output_tokens=99) as stream:
            deltas = [event.delta async for event in stream if event.type == "response.reasoning_text.delta"]
        assert "".join(deltas) == "Hm."
        history = [{"role": "user", "content": "Is it?"}, *(item.to_dict() for item in whole.output)]
        again = [*history, {"role": "user", "content": "Sure?"}]
        assert (await client.responses.create(model=PRICED, input=again)).status == "incomplete"


async def test_cut_off_response_is_incomplete(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "Blue, they say.") as (_, client):
        cut = await client.responses.create(model=PRICED, input="Why?", max_output_tokens=4)
        assert (cut.status, cut.incomplete_details.reason, cut.output_text) == (
            "incomplete",
            "max_output_tokens",
            "Blue",
        )


async def test_logprobs_cover_the_text(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "Blue") as (_, client):
        include: list[Any] = ["message.output_text.logprobs"]
        shown = await client.responses.create(model=PRICED, input="Why?", include=include, top_logprobs=1)
        logprobs = shown.output[0].content[0].logprobs
        assert "".join(one.token for one in logprobs) == "Blue"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "function", "name": "no spaces"}]}, "tools[0].name"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": "x" * 999}, "input"),
        ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "text.format.name"),
    ],
)
async def test_unsupported_field_is_refused_by_its_own_name(provider, fields, param):
    body = {"model": PRICED, "input": "Why?", **fields}
    response = await provider.client.post("/v1/responses", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert "response_format" not in error["message"]


async def test_engine_failure_in_mid_stream_is_an_event_unbilled(provider):
    provider.runner.crash = RuntimeError("out of luck")
    response = await provider.client.post("/v1/responses", json={"model": PRICED, "input": "Why?", "stream": True})
    last = json.loads(response.text.strip().rpartition("data: ")[2])
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "server_error")
    assert provider.usage_row()["cost_nanousd"] == 0
