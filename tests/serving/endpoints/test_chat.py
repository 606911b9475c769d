"""`POST /v1/chat/completions`, in OpenAI's bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.money import format_usd
from tests.fakes import FakeRunner
from tests.server.asgi_call import AsgiCall
from tests.serving.provider import (
    DEFAULT_MAX_TOKENS,
    FREE,
    MAX_CONTEXT,
    PRICED,
    PacedRunner,
    cost_of,
    prompt_of,
    running_provider,
)
from tests.serving.writers import SlowWriter

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())


def usage_of(n_prompt: int, n_completion: int, cost_nanousd: int) -> dict[str, Any]:
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "cost": format_usd(cost_nanousd),
    }


async def test_whole_answer_has_every_field_of_openais(provider):
    response = await provider.chat(max_tokens=5)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert "inferd-max-tokens" not in response.headers
    body = response.json()
    assert body == {
        "id": "chatcmpl-" + response.headers["x-request-id"].removeprefix("req_"),
        "object": "chat.completion",
        "created": body["created"],
        "model": PRICED,
        "choices": [
            {
                "message": {
                    "content": FakeRunner.continuation(prompt_of(), 5).decode(),
                    "role": "assistant",
                    "refusal": None,
                },
                "finish_reason": "length",
                "index": 0,
                "logprobs": None,
            }
        ],
        "usage": usage_of(N_PROMPT, 5, cost_of(N_PROMPT, 5)),
        "service_tier": "default",
        "system_fingerprint": provider.router.find(PRICED).replica.fingerprint,
        "timings": body["timings"],
    }
    assert isinstance(body["created"], int)


async def test_usage_shown_equals_the_usage_row(provider):
    response = await provider.chat(max_tokens=5)
    row = provider.usage_row()
    assert row["request_id"] == response.headers["x-request-id"]
    assert response.json()["usage"] == usage_of(row["prompt_tokens"], row["completion_tokens"], row["cost_nanousd"])
    entries = {entry["account"]: entry["amount_nanousd"] for entry in provider.rows("entries") if entry["txn"] > 1}
    assert entries == {"team:acme:credit:1": -row["cost_nanousd"], f"revenue:{PRICED}": row["cost_nanousd"]}


def expected_stream(call: AsgiCall, text: str, reason: str, usage: dict[str, Any] | None) -> bytes:
    """The stream's exact bytes, built by hand; `usage` None: it was not asked for."""
    first = call.chunks[0]
    fixed = {"id": first["id"], "object": "chat.completion.chunk", "created": first["created"], "model": PRICED}
    tail: dict[str, Any] = {"service_tier": "default", "system_fingerprint": first["system_fingerprint"]}

    def event(choices: list[dict[str, Any]], used: dict[str, Any] | None = None, *, is_last: bool = False) -> bytes:
        body = {**fixed, "choices": choices, **tail} | ({} if usage is None else {"usage": used})
        body |= {"timings": call.chunks[-1]["timings"]} if is_last else {}
        return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"

    def choice(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, Any]]:
        return [{"delta": delta, "finish_reason": finish_reason, "index": 0, "logprobs": None}]

    events = [event(choice({"role": "assistant", "content": ""}))]
    events += [event(choice({"content": character})) for character in text]
    events.append(event(choice({}, reason), is_last=usage is None))
    if usage is not None:
        events.append(event([], usage, is_last=True))
    return b"".join([*events, b"data: [DONE]\n\n"])


async def test_stream_is_role_deltas_finish_and_done(provider, call):
    stream = call(provider, stream=True, max_tokens=3)
    await stream.ended()
    text = FakeRunner.continuation(prompt_of(), 3).decode()
    assert stream.body == expected_stream(stream, text, "length", None)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-store"
    assert stream.chunks[0]["id"] == "chatcmpl-" + stream.headers["x-request-id"].removeprefix("req_")


async def test_stream_with_usage_has_one_more_chunk_and_null_in_the_others(provider, call):
    stream = call(provider, stream=True, max_tokens=3, stream_options={"include_usage": True})
    await stream.ended()
    text = FakeRunner.continuation(prompt_of(), 3).decode()
    usage = usage_of(N_PROMPT, 3, cost_of(N_PROMPT, 3))
    assert stream.body == expected_stream(stream, text, "length", usage)
    assert provider.usage_row()["cost_nanousd"] == cost_of(N_PROMPT, 3)


async def test_end_token_is_billed_and_not_shown(tmp_path, monkeypatch, call):
    def make_runner(**options: Any) -> PacedRunner:
        return PacedRunner(answer=b"Hi!", **options)

    async with running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider:
        stream = call(provider, stream=True, stream_options={"include_usage": True})
        await stream.ended()
        assert stream.body == expected_stream(stream, "Hi!", "stop", usage_of(N_PROMPT, 4, cost_of(N_PROMPT, 4)))


async def test_chunk_holds_whole_characters(tmp_path, monkeypatch, call):
    def make_runner(**options: Any) -> PacedRunner:
        return PacedRunner(answer="né 😀".encode(), **options)

    async with running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider:
        stream = call(provider, stream=True)
        await stream.ended()
        deltas = [chunk["choices"][0]["delta"].get("content") for chunk in stream.chunks]
        assert deltas == ["", "n", "é", " ", "😀", None]


async def test_stop_string_is_cut_off_and_its_tokens_are_billed(tmp_path, monkeypatch):
    def make_runner(**options: Any) -> PacedRunner:
        return PacedRunner(answer=b"one. two. three.", **options)

    async with running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider:
        body = (await provider.chat(stop=["wo", "xyz"])).json()
        (choice,) = body["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("one. t", "stop")
        assert body["usage"]["completion_tokens"] == len("one. two")


async def test_clamped_limit_is_in_a_header(provider, call):
    room = MAX_CONTEXT - N_PROMPT
    response = await provider.chat(max_tokens=room + 100)
    assert response.headers["inferd-max-tokens"] == str(room)
    assert response.json()["usage"]["completion_tokens"] == room
    assert response.json()["choices"][0]["finish_reason"] == "length"
    stream = call(provider, stream=True, max_completion_tokens=room + 1)
    await stream.ended()
    assert stream.headers["inferd-max-tokens"] == str(room)


async def test_default_limit_has_no_clamp_header(provider):
    response = await provider.chat()
    assert "inferd-max-tokens" not in response.headers
    assert response.json()["usage"]["completion_tokens"] == DEFAULT_MAX_TOKENS


async def test_free_deployment_answers_a_team_without_credit_at_cost_0(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=0) as provider:
        response = await provider.chat(model=FREE, max_tokens=4)
        assert response.json()["usage"] == usage_of(N_PROMPT, 4, 0)
        assert provider.rows("holds") == []
        assert provider.usage_row()["deployment"] == FREE


@pytest.mark.parametrize("options", [None, {"include_usage": True}])
async def test_stream_ends_after_the_commit(tmp_path, monkeypatch, call, options):
    async with running_provider(tmp_path, monkeypatch, make_writer=SlowWriter) as provider:
        stream = call(provider, stream=True, max_tokens=3, stream_options=options)
        await stream.until(lambda: len(stream.text) == 3)
        await provider.until(provider.writer.reached.is_set)
        assert len(stream.events) == 4, "role and three deltas"
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in stream.chunks)
        assert provider.rows("usage") == []
        provider.writer.release()
        await stream.ended()
        assert stream.events[-1] == "[DONE]"
        assert provider.hold_states() == ["settled"]


async def test_whole_answer_is_sent_after_the_commit(tmp_path, monkeypatch, call):
    async with running_provider(tmp_path, monkeypatch, make_writer=SlowWriter) as provider:
        asked = call(provider, max_tokens=3)
        await provider.until(provider.writer.reached.is_set)
        assert asked.status is None
        assert provider.rows("usage") == []
        provider.writer.release()
        await asked.ended()
        assert json.loads(asked.body)["usage"]["completion_tokens"] == 3


async def test_concurrent_streams_end_once_and_their_costs_add_up(provider, call):
    streams = [
        call(provider, content=f"number {index}", stream=True, max_tokens=1 + index, stream_options=WITH_USAGE)
        for index in range(12)
    ]
    for stream in streams:
        await stream.ended()
    for index, stream in enumerate(streams):
        assert stream.text == FakeRunner.continuation(prompt_of(f"number {index}"), 1 + index).decode()
        reasons = [choice["finish_reason"] for chunk in stream.chunks for choice in chunk["choices"]]
        assert [reason for reason in reasons if reason] == ["length"]
        assert stream.events.count("[DONE]") == 1
    shown = [stream.chunks[-1]["usage"] for stream in streams]
    rows = provider.rows("usage")
    for field in ("prompt_tokens", "completion_tokens"):
        assert sum(usage[field] for usage in shown) == sum(row[field] for row in rows)
    assert sorted(usage["cost"] for usage in shown) == sorted(format_usd(row["cost_nanousd"]) for row in rows)
    revenue = [entry["amount_nanousd"] for entry in provider.rows("entries") if entry["account"] == f"revenue:{PRICED}"]
    assert sum(revenue) == sum(row["cost_nanousd"] for row in rows)


WITH_USAGE = {"include_usage": True}


async def test_credit_for_k_of_n_calls_answers_k_and_refuses_the_rest_with_402(tmp_path, monkeypatch, call):
    k, n = 3, 9
    credit = k * cost_of(N_PROMPT, 6)
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=credit) as provider:
        provider.runner.hold_back()
        asked = [call(provider, max_tokens=6) for _ in range(n)]
        await provider.until(lambda: sum(each.status is not None for each in asked) == n - k)
        assert provider.hold_states() == ["held"] * k
        provider.runner.let_go()
        for each in asked:
            await each.ended()
        assert sorted(each.status for each in asked) == [200] * k + [402] * (n - k)
        assert provider.credit().available_nanousd == 0
        assert provider.hold_states() == ["settled"] * k
