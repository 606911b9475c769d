"""`POST /v1/messages` with Anthropic's own SDK on a real socket: all is real but the model, which is of bytes."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import jsonschema
import pytest

from inferd.money import format_usd
from tests.server.transport.test_server import served_on_socket
from tests.serving import provider as providers
from tests.serving.provider import PRICED, TEMPLATE, FakeModel, PacedRunner, Provider, prompt_of, running_provider

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [{"name": "add", "description": "Adds.", "input_schema": SCHEMA}]
CALL = 'Well.\n<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>'
ASK: dict[str, Any] = {"model": PRICED, "max_tokens": 300, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def roomy(monkeypatch):
    """A token is a byte here, and tools are described in hundreds of them."""
    monkeypatch.setattr(providers, "MAX_CONTEXT", 4096)


@asynccontextmanager
async def asked(
    tmp_path: Any, monkeypatch: Any, text: str, **options: Any
) -> AsyncIterator[tuple[Provider, anthropic.AsyncAnthropic]]:
    """A provider whose model says `text`, on a socket, and the SDK that asks it."""
    make_runner = functools.partial(PacedRunner, answer=text.encode())
    async with (
        running_provider(tmp_path, monkeypatch, make_runner=make_runner, **options) as provider,
        served_on_socket(provider) as served,
        anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{served.port}", api_key=provider.key, max_retries=0
        ) as client,
    ):
        yield provider, client


def assert_usage_is_billed(usage: Any, row: dict[str, Any]) -> None:
    cached = usage.cache_read_input_tokens
    assert usage.input_tokens + cached + usage.cache_creation_input_tokens == row["prompt_tokens"]
    assert (cached, usage.output_tokens) == (row["cached_tokens"], row["completion_tokens"])


async def test_whole_and_streamed_text_are_equal_and_billed_to_the_token(tmp_path, monkeypatch, roomy):
    monkeypatch.setattr(Provider, "reuses", True)
    async with asked(tmp_path, monkeypatch, "Blue, they say.") as (provider, client):
        whole = await client.messages.create(**ASK)
        async with client.messages.stream(**ASK) as stream:
            kinds = [event.type async for event in stream]
            streamed = await stream.get_final_message()
        for message, row in zip((whole, streamed), provider.rows("usage"), strict=True):
            assert [block.text for block in message.content] == ["Blue, they say."]
            assert (message.stop_reason, message.role, message.model) == ("end_turn", "assistant", PRICED)
            assert_usage_is_billed(message.usage, row)
        assert whole.usage.cost == format_usd(provider.rows("usage")[0]["cost_nanousd"])
        assert streamed.usage.cache_read_input_tokens > 0, "the second one found its prompt"
        assert kinds[0] == "message_start"
        assert kinds[-1] == "message_stop"
        assert kinds.count("text") > 3


async def test_stream_has_anthropics_events(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, make_runner=functools.partial(PacedRunner, answer=b"Hi")) as own:
        response = await own.client.post("/v1/messages", json={**ASK, "max_tokens": 9, "stream": True})
    events = [part.split("\ndata: ") for part in response.text.strip().split("\n\n")]
    names = [name.removeprefix("event: ") for name, _ in events]
    assert names == [json.loads(data)["type"] for _, data in events]
    assert [name for name in names if name != "content_block_delta"] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = json.loads(events[0][1])["message"]
    assert (start["usage"]["input_tokens"], start["stop_reason"]) == (len(prompt_of()), None)


async def test_tool_call_and_its_result_go_round(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, CALL) as (_, client):
        async with client.messages.stream(**ASK, tools=TOOLS) as stream:
            streamed = await stream.get_final_message()
        whole = await client.messages.create(**ASK, tools=TOOLS)
        for message in (streamed, whole):
            text, call = message.content
            assert (message.stop_reason, text.text, call.name, call.id[:6]) == ("tool_use", "Well.", "add", "toolu_")
            jsonschema.validate(call.input, SCHEMA)
        result = {"type": "tool_result", "tool_use_id": whole.content[1].id, "content": "no", "is_error": True}
        after = [result, {"type": "text", "text": "So?"}]
        turns = [*ASK["messages"], whole.to_param(), {"role": "user", "content": after}]
        again = await client.messages.create(**{**ASK, "messages": turns}, tools=TOOLS)
        assert again.usage.input_tokens > whole.usage.input_tokens
        chosen = await client.messages.create(**ASK, tools=TOOLS, tool_choice={"type": "any"})
        assert [block.type for block in chosen.content] == ["tool_use"]


async def test_thinking_is_a_block_and_can_be_sent_back(tmp_path, monkeypatch, roomy):
    thinking = TEMPLATE + "{# <think></think> #}"
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, thinking))
    async with asked(tmp_path, monkeypatch, "<think>\nHm.\n</think>\n\nYes.") as (_, client):
        whole = await client.messages.create(**ASK)
        thought, text = whole.content
        assert (thought.type, thought.thinking, text.text) == ("thinking", "Hm.", "Yes.")
        assert whole.usage.output_tokens_details.thinking_tokens > 3
        async with client.messages.stream(**ASK) as stream:
            streamed = await stream.get_final_message()
        assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in whole.content]
        turns = [*ASK["messages"], whole.to_param(), {"role": "user", "content": "Sure?"}]
        assert (await client.messages.create(**{**ASK, "messages": turns})).stop_reason == "end_turn"


async def test_stop_sequence_is_named(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, "Blue, they say.") as (_, client):
        stopped = await client.messages.create(**ASK, stop_sequences=["zz", " they"])
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " they")
        assert stopped.content[0].text == "Blue,"
        cut = await client.messages.create(**{**ASK, "max_tokens": 4})
        assert (cut.stop_reason, cut.stop_sequence, cut.content[0].text) == ("max_tokens", None, "Blue")


async def test_count_tokens_equals_the_billed_tokens_and_is_free(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, "Blue") as (provider, client):
        system: list[Any] = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
        counted = await client.messages.count_tokens(model=PRICED, messages=ASK["messages"], system=system, tools=TOOLS)
        assert provider.rows("usage") == []
        message = await client.messages.create(**ASK, system=system, tools=TOOLS)
        assert message.usage.input_tokens == counted.input_tokens


async def test_key_in_x_api_key_is_accepted_and_errors_have_anthropics_shape(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=1) as provider:
        body = {**ASK, "max_tokens": 3}
        own = {"authorization": "", "x-api-key": provider.key}
        poor = await provider.client.post("/v1/messages", json=body, headers=own)
        assert poor.status_code == 402
        assert poor.json()["error"]["type"] == "billing_error"
        assert poor.json()["error"]["details"]["error_code"] == "credit_balance_exhausted"
        assert poor.json()["request_id"] == poor.headers["request-id"] == poor.headers["x-request-id"]
        wrong = await provider.client.post("/v1/messages", json=body, headers=own | {"x-api-key": "sk-inferd-no"})
        assert (wrong.status_code, wrong.json()["error"]["type"]) == (401, "authentication_error")
        missing = await provider.client.get("/v1/messages")
        assert (missing.status_code, missing.json()["type"]) == (405, "error")
        old = await provider.client.post("/v1/messages", json=body, headers={"anthropic-version": "2023-01-01"})
        assert old.status_code == 400


async def test_sdk_raises_its_own_errors(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "Hi") as (_, client):
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await client.messages.create(**{**ASK, "model": "no/model"})
        assert unknown.value.type == "not_found_error"
        content: list[Any] = [{"type": "tool_result", "tool_use_id": "x"}]
        with pytest.raises(anthropic.BadRequestError) as result:
            await client.messages.create(**{**ASK, "messages": [{"role": "user", "content": content}]})
        assert "messages[0].content[0]" in result.value.api_message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_sequences": ["x" * 2000]}, "stop_sequences[0]"),
        ({"tools": [{"name": "no spaces", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": {"type": "array"}}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"metadata": {"user_id": "x" * 600}}, "metadata.user_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
    ],
)
async def test_unsupported_field_is_refused_by_its_own_name(provider, fields, param):
    response = await provider.client.post("/v1/messages", json={**ASK, "max_tokens": 9, **fields})
    assert response.status_code == 400
    assert response.json()["error"]["details"]["param"] == param


async def test_engine_failure_in_mid_stream_is_an_event_unbilled(provider):
    provider.runner.crash = RuntimeError("out of luck")
    response = await provider.client.post("/v1/messages", json={**ASK, "max_tokens": 9, "stream": True})
    last = json.loads(response.text.strip().rpartition("data: ")[2])
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert provider.usage_row()["cost_nanousd"] == 0


@pytest.mark.parametrize("version", ["2023-01-01", "latest", "9", ""])
async def test_version_header_without_a_date_or_too_old_is_refused(provider, version):
    response = await provider.client.post("/v1/messages", json={}, headers={"anthropic-version": version})
    assert response.status_code == 400
    assert response.json()["error"]["details"]["param"] == "anthropic-version"


async def test_last_turn_of_the_assistant_is_the_beginning_of_the_answer(tmp_path, monkeypatch, roomy):
    turns = [*ASK["messages"], {"role": "assistant", "content": "Once <|end|>"}]
    async with running_provider(tmp_path, monkeypatch) as provider:
        answer = await provider.client.post("/v1/messages", json=ASK | {"max_tokens": 9, "messages": turns})
        counted = await provider.client.post("/v1/messages/count_tokens", json={"model": PRICED, "messages": turns})
        (row,) = provider.rows("usage")
    assert answer.status_code == 200
    assert row["prompt_tokens"] == counted.json()["input_tokens"]
    begun = [*b"assistant\n", *b"Once <|end|>"]
    assert row["prompt_tokens"] == len(prompt_of(ASK["messages"][0]["content"])) - len("assistant:") + len(begun)
