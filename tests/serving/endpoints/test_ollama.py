"""Ollama's API with its own Python client on a real socket: all is real but the model, which is of bytes."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ollama
import pytest

from inferd.money import format_usd
from inferd.server.streaming import EventStream
from tests.fakes import END
from tests.server.transport.test_server import served_on_socket
from tests.serving import provider as providers
from tests.serving.provider import (
    FREE,
    PRICED,
    TEMPLATE,
    FakeModel,
    PacedRunner,
    Provider,
    prompt_of,
    running_provider,
)

pytestmark = pytest.mark.anyio

HI: list[Any] = [{"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA}}]
CALL = 'Well.\n<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>'
GREEDY = {"temperature": 0, "num_predict": 200}


@pytest.fixture
def roomy(monkeypatch):
    """A token is a byte here, and tools are described in hundreds of them."""
    monkeypatch.setattr(providers, "MAX_CONTEXT", 4096)


@asynccontextmanager
async def asked(
    tmp_path: Any, monkeypatch: Any, text: str, **options: Any
) -> AsyncIterator[tuple[Provider, ollama.AsyncClient]]:
    """A provider whose model says `text`, on a socket, and the client that asks it."""
    make_runner = functools.partial(PacedRunner, answer=text.encode())
    async with (
        running_provider(tmp_path, monkeypatch, make_runner=make_runner, **options) as provider,
        served_on_socket(provider) as served,
    ):
        headers = {"authorization": f"Bearer {provider.key}"}
        client = ollama.AsyncClient(host=f"http://127.0.0.1:{served.port}", headers=headers)
        yield provider, client
        await client._client.aclose()


async def read_all(lines: Any) -> list[Any]:
    return [line async for line in lines]


def assert_is_billed(answer: Any, row: dict[str, Any]) -> None:
    assert (answer.prompt_eval_count, answer.eval_count) == (row["prompt_tokens"], row["completion_tokens"])
    durations = (answer.load_duration, answer.prompt_eval_duration, answer.eval_duration)
    assert min(durations) >= 0
    assert sum(durations) == answer.total_duration


async def test_chat_whole_and_streamed_are_equal_and_billed_to_the_token(tmp_path, monkeypatch, roomy):
    monkeypatch.setattr(Provider, "reuses", True)
    async with asked(tmp_path, monkeypatch, "Blue, they say.") as (provider, client):
        whole = await client.chat(PRICED, HI, options=GREEDY)
        lines = [line async for line in await client.chat(PRICED, HI, options=GREEDY, stream=True)]
        rows = provider.rows("usage")
    assert (whole.message.role, whole.message.content, whole.model) == ("assistant", "Blue, they say.", PRICED)
    assert (whole.done, whole.done_reason) == (True, "stop")
    assert "".join(line.message.content or "" for line in lines) == "Blue, they say."
    assert len(lines) > 3
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert_is_billed(whole, rows[0])
    assert_is_billed(lines[-1], rows[1])
    assert rows[1]["cached_tokens"] > 0, "the second one found its prompt, and its count has all of it"


async def test_answer_shows_the_bill(provider):
    answer = (await provider.client.post("/api/chat", json={"model": PRICED, "messages": HI, "stream": False})).json()
    row = provider.usage_row()
    assert answer["usage"]["cost"] == format_usd(row["cost_nanousd"])
    assert answer["usage"]["total_tokens"] == answer["prompt_eval_count"] + answer["eval_count"]


async def test_silence_in_a_stream_is_filled_with_a_line_that_clients_read(tmp_path, monkeypatch):
    """A blank line would break ollama-python, which reads each line as JSON."""
    monkeypatch.setattr(EventStream, "DEFAULT_PING_INTERVAL", 0.05)
    async with asked(tmp_path, monkeypatch, "Hi") as (provider, client):
        provider.runner.hold_back()
        reading = asyncio.create_task(read_all(await client.chat(f"{PRICED}:latest", HI, stream=True)))
        await provider.until(lambda: provider.runner.waits)
        await asyncio.sleep(0.2)
        provider.runner.let_go()
        lines = await reading
    assert (lines[0].message.content, lines[0].done, lines[0].model) == ("", False, PRICED)
    assert "".join(line.message.content for line in lines) == "Hi"


async def test_stream_is_lines_of_json(provider):
    response = await provider.client.post("/api/chat", json={"model": PRICED, "messages": HI})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    lines = response.text.splitlines()
    assert all(line.startswith('{"model":') for line in lines)
    assert json.loads(lines[-1])["done_reason"] == "length"


@pytest.mark.parametrize("name", [PRICED, f"{PRICED}:latest"])
async def test_tag_latest_names_the_deployment(provider, name):
    body = {"model": name, "messages": HI, "stream": False}
    assert (await provider.client.post("/api/chat", json=body)).json()["model"] == PRICED


async def test_tool_call_and_its_result_go_round(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, CALL) as (_, client):
        whole = await client.chat(PRICED, HI, tools=TOOLS, options=GREEDY)
        lines = [line async for line in await client.chat(PRICED, HI, tools=TOOLS, options=GREEDY, stream=True)]
        (streamed,) = [line.message for line in lines if line.message.tool_calls]
        for message in (whole.message, streamed):
            assert message.tool_calls is not None
            (call,) = message.tool_calls
            assert (call.function.name, call.function.arguments) == ("add", {"a": 7})
        assert whole.message.content == "Well."
        turns = [*HI, whole.message, {"role": "tool", "content": "8", "tool_name": "add"}]
        again = await client.chat(PRICED, turns, tools=TOOLS, options=GREEDY)
        assert (again.prompt_eval_count or 0) > (whole.prompt_eval_count or 0)


async def test_thinking_is_apart_and_can_be_sent_back(tmp_path, monkeypatch, roomy):
    thinking = TEMPLATE + "{# <think></think> #}{% if enable_thinking is defined %}{% endif %}"
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, thinking))
    async with asked(tmp_path, monkeypatch, "<think>\nHm.\n</think>\n\nYes.") as (_, client):
        whole = await client.chat(PRICED, HI, think=True, options=GREEDY)
        assert (whole.message.thinking, whole.message.content) == ("Hm.", "Yes.")
        lines = [line async for line in await client.chat(PRICED, HI, think="high", options=GREEDY, stream=True)]
        assert "".join(line.message.thinking or "" for line in lines) == "Hm."
        text = await client.generate(PRICED, "hello", think=True, options=GREEDY)
        assert (text.thinking, text.response) == ("Hm.", "Yes.")
        assert (await client.chat(PRICED, [*HI, whole.message, *HI], options=GREEDY)).done_reason == "stop"


async def test_format_holds_in_chats_completions_and_raw_ones(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, "no json") as (_, client):
        chat = await client.chat(PRICED, HI, format=SCHEMA, options=GREEDY)
        assert set(json.loads(chat.message.content or "")) == {"a"}
        for options in ({}, {"raw": True}):
            text = await client.generate(PRICED, "hello", format=SCHEMA, options=GREEDY, **options)
            assert set(json.loads(text.response or "")) == {"a"}


async def test_completion_has_the_tokens_of_prompt_and_answer_as_its_context(tmp_path, monkeypatch, roomy):
    monkeypatch.setattr(Provider, "reuses", True)
    async with asked(tmp_path, monkeypatch, "Blue.") as (provider, client):
        first = await client.generate(PRICED, "hello", options=GREEDY)
        assert first.context == [*prompt_of(), *b"Blue.", END]
        second = await client.generate(PRICED, "why", context=first.context, options=GREEDY)
        assert second.context == [*first.context, *prompt_of("why"), *b"Blue.", END]
        row = provider.rows("usage")[1]
        assert_is_billed(second, row)
        assert row["prompt_tokens"] == len(first.context) + len(prompt_of("why"))
        assert row["cached_tokens"] >= len(first.context) - 1
        lines = [line async for line in await client.generate(PRICED, "hello", options=GREEDY, stream=True)]
        assert lines[-1].context == first.context


async def test_raw_completion_is_of_the_prompt_alone(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, "<think>x") as (provider, client):
        answer = await client.generate(PRICED, "abc", raw=True, options=GREEDY)
        assert (answer.response, answer.context) == ("<think>x", None)
        assert provider.usage_row()["prompt_tokens"] == len("abc") + 1  # the vocabulary's first token


async def test_context_that_no_vocabulary_has_is_refused(provider):
    body = {"model": PRICED, "prompt": "a", "context": [10**6]}
    response = await provider.client.post("/api/generate", json=body)
    assert (response.status_code, response.json()["param"]) == (400, "context")


async def test_log_probabilities_are_of_the_sampled_tokens(tmp_path, monkeypatch, roomy):
    async with asked(tmp_path, monkeypatch, "Hi") as (_, client):
        answer = await client.chat(PRICED, HI, logprobs=True, top_logprobs=2, options=GREEDY)
        assert [each.token for each in answer.logprobs or ()] == ["H", "i"]
        assert [len(each.top_logprobs or ()) for each in answer.logprobs or ()] == [2, 2]


@pytest.mark.parametrize(("keep_alive", "reason"), [("5m", "load"), (0, "unload")])
async def test_request_for_nothing_but_the_model_is_free(tmp_path, monkeypatch, keep_alive, reason):
    async with asked(tmp_path, monkeypatch, "no") as (provider, client):
        chat = await client.chat(PRICED, [], keep_alive=keep_alive)
        text = await client.generate(PRICED, "", keep_alive=keep_alive)
        assert (chat.done_reason, text.done_reason, chat.message.content) == (reason, reason, "")
        lines = [line async for line in await client.generate(PRICED, "", keep_alive=keep_alive, stream=True)]
        assert [(line.done, line.done_reason) for line in lines] == [(True, reason)]
        assert (await client.embed(PRICED, [])).embeddings == []
        assert (await client.embeddings(PRICED, "")).embedding == []
        assert provider.rows("usage") == []


async def test_embeddings_are_of_length_one_and_billed(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "no") as (provider, client):
        both = await client.embed(PRICED, ["ab", "c"], truncate=True, options={"num_ctx": 99})
        one = await client.embed(PRICED, "ab", dimensions=2)
        older = await client.embeddings(PRICED, "ab")
        rows = provider.rows("usage")
    assert [sum(x * x for x in vector) for vector in both.embeddings] == pytest.approx([1, 1], abs=1e-5)
    assert list(older.embedding) == list(both.embeddings[0])
    assert len(one.embeddings[0]) == 2
    assert [both.prompt_eval_count, one.prompt_eval_count] == [row["prompt_tokens"] for row in rows[:2]]
    assert both.model == PRICED
    assert (both.total_duration or 0) >= (both.load_duration or 0) >= 0


async def test_input_to_embed_that_is_too_long_is_cut_unless_told_not_to(provider):
    replica = provider.router.find(PRICED).replica
    body = {"model": PRICED, "input": ["a" * (replica.max_embedding_tokens + 9), "b"], "dimensions": 99_999}
    cut = await provider.client.post("/api/embed", json=body)
    assert cut.json()["prompt_eval_count"] == replica.max_embedding_tokens + 2, "of the second, its BOS too"
    assert cut.headers["inferd-ignored"] == "dimensions, input[0]"
    assert len(cut.json()["embeddings"][0]) == replica.embedding_size
    whole = await provider.client.post("/api/embed", json=body | {"truncate": False})
    assert (whole.status_code, whole.json()["param"]) == (400, "input[0]")
    older = await provider.client.post("/api/embeddings", json={"model": PRICED, "prompt": body["input"][0]})
    assert older.status_code == 400
    assert [row["prompt_tokens"] for row in provider.rows("usage")] == [replica.max_embedding_tokens + 2]


async def test_errors_are_ollamas_with_their_status(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "no", credit_nanousd=0) as (_, client):
        for ask, status in (
            (client.chat("local/none", HI), 404),
            (client.chat(PRICED, HI), 402),
            (client.generate(PRICED, "a", suffix="b"), 400),
            (client.show("local/none"), 404),
            (client.pull("llama3"), 501),
            (client.delete(PRICED), 501),
            (client.copy(PRICED, "x"), 501),
            (client.create("x", from_=PRICED), 501),
            (client.push("x"), 501),
        ):
            with pytest.raises(ollama.ResponseError) as caught:
                await ask
            assert caught.value.status_code == status
            assert len(caught.value.error) > 20
        lines = await client.chat(PRICED, HI, stream=True)
        with pytest.raises(ollama.ResponseError) as caught:
            [line async for line in lines]
        assert caught.value.status_code == 402
        assert (await client.chat(FREE, HI)).done


async def test_rate_limit_is_a_429_in_ollamas_shape(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "no") as (provider, client):
        provider.limits.concurrency.enter = lambda shares: 0  # type: ignore[method-assign, assignment]
        with pytest.raises(ollama.ResponseError) as caught:
            await client.chat(PRICED, HI)
    assert (caught.value.status_code, "Concurrency limit" in caught.value.error) == (429, True)


async def test_failure_in_a_stream_is_its_last_line_and_unbilled(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "a long answer") as (provider, client):
        provider.runner.hold_back()
        lines = await client.chat(PRICED, HI, stream=True)
        reading = asyncio.create_task(read_all(lines))
        await provider.until(lambda: provider.runner.waits)
        provider.completions.cut_off()
        with pytest.raises(ollama.ResponseError, match="shutting down"):
            await reading
        provider.runner.let_go()
        await provider.idle()
        assert provider.usage_row()["status"] == "failed"


async def test_hang_up_is_billed_for_what_was_computed(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "a long answer") as (provider, client):
        lines = await client.chat(PRICED, HI, stream=True, options={"num_predict": 200})
        provider.runner.hold_back()
        provider.runner.allow(3)
        await anext(lines)
        await lines.aclose()
        await client._client.aclose()
        provider.runner.let_go()
        await provider.idle()
        row = provider.usage_row()
    assert row["status"] in ("cancelled", "completed")
    assert row["prompt_tokens"] == len(prompt_of())
