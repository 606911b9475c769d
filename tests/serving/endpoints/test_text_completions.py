"""`POST /v1/completions` with everything behind it but weights and socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from openai import AsyncOpenAI

from inferd.engine.backlog import Backlog
from inferd.engine.messages import AddRequest
from tests.fakes import BEGIN, END, FakeRunner
from tests.server.asgi_call import AsgiCall
from tests.serving.provider import (
    DEFAULT_MAX_TOKENS,
    FREE,
    MAX_CONTEXT,
    PRICED,
    PacedRunner,
    Provider,
    cost_of,
    running_provider,
)

pytestmark = pytest.mark.anyio


def said(token_ids: list[int], n: int) -> str:
    return FakeRunner.continuation(token_ids, n).decode()


async def post(provider: Provider, **fields: Any) -> httpx.Response:
    return await provider.client.post("/v1/completions", json={"model": PRICED, "prompt": "hello", **fields})


def call(provider: Provider, **fields: Any) -> AsgiCall:
    headers = {"authorization": f"Bearer {provider.key}"}
    body = json.dumps({"model": PRICED, "prompt": "hello", **fields}).encode()
    return AsgiCall(provider.app, "POST", "/v1/completions", headers=headers, body=body)


async def test_text_completion_has_openais_shape_and_is_billed_like_a_chat(provider):
    response = await post(provider, max_tokens=5)
    prompt = [BEGIN, *b"hello"]
    body = response.json()
    assert body.pop("created") > 1_700_000_000
    assert body.pop("system_fingerprint").startswith("fp_")
    usage = body.pop("usage")
    assert body.pop("timings")["predicted_n"] == 5
    assert body == {
        "id": "cmpl-" + response.headers["x-request-id"].removeprefix("req_"),
        "object": "text_completion",
        "model": PRICED,
        "choices": [{"text": said(prompt, 5), "index": 0, "finish_reason": "length", "logprobs": None}],
    }
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (6, 5, 11)
    row = provider.usage_row()
    assert row["request_id"] == response.headers["x-request-id"]
    assert row["cost_nanousd"] == cost_of(6, 5)


@pytest.mark.parametrize(
    ("prompt", "token_ids"),
    [
        ("hi", [BEGIN, *b"hi"]),
        ("<|begin|>hi", [BEGIN, *b"hi"]),
        ("a<|end|>b", [BEGIN, 97, END, 98]),
        ([97, 98], [97, 98]),
        ([BEGIN, 97], [BEGIN, 97]),
        ([[97, 98]], [97, 98]),
        (["hi"], [BEGIN, *b"hi"]),
    ],
)
async def test_prompt_text_has_one_bos_and_control_tokens_and_ids_are_unchanged(provider, prompt, token_ids):
    body = (await post(provider, prompt=prompt, max_tokens=4)).json()
    assert body["choices"][0]["text"] == said(token_ids, 4)
    assert body["usage"]["prompt_tokens"] == len(token_ids)


async def test_prompts_are_choices_of_one_answer_with_a_hold_each(provider):
    response = await post(provider, prompt=["one", "three", "one"], max_tokens=3)
    body = response.json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    texts = [said([BEGIN, *prompt], 3) for prompt in (b"one", b"three", b"one")]
    assert [choice["text"] for choice in body["choices"]] == texts
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (4 + 6 + 4, 9)
    first = response.headers["x-request-id"]
    rows = provider.rows("usage")
    assert sorted(row["request_id"] for row in rows) == [first, f"{first}-1", f"{first}-2"]
    assert sum(row["cost_nanousd"] for row in rows) == cost_of(14, 9)


async def test_prompts_start_together_or_cost_nothing(tmp_path, monkeypatch):
    """Credit for two of three: the two that could be held compute nothing."""
    credit = 2 * cost_of(4, 50)
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=credit) as provider:
        response = await post(provider, prompt=["one", "two", "six"], max_tokens=50)
        assert response.status_code == 402
        await provider.idle()
        assert provider.runner.rows_per_step == []
        assert provider.credit().available_nanousd == credit
        assert (await post(provider, prompt=["one", "two"], max_tokens=50)).status_code == 200


async def test_prompt_too_long_refuses_all_and_is_named(provider):
    response = await post(provider, prompt=["ok", "a" * MAX_CONTEXT])
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt[1]")
    await provider.idle()
    assert provider.runner.rows_per_step == []


async def test_echo_puts_the_prompt_before_the_text(provider):
    body = (await post(provider, prompt=["hi", "<|begin|>x"], max_tokens=2, echo=True)).json()
    assert body["choices"][0]["text"] == "hi" + said([BEGIN, *b"hi"], 2)
    assert body["choices"][1]["text"] == "<|begin|>x" + said([BEGIN, *b"x"], 2)
    by_id = (await post(provider, prompt=[104, 105], max_tokens=2, echo=True)).json()
    assert by_id["choices"][0]["text"] == "hi" + said([104, 105], 2)
    stream = call(provider, prompt="hi", max_tokens=2, echo=True, stream=True)
    await stream.ended()
    assert "".join(c["text"] for chunk in stream.chunks for c in chunk["choices"]) == body["choices"][0]["text"]


async def test_text_completion_ends_at_a_stop_string_and_at_its_limit(tmp_path, monkeypatch):
    def make_runner(**options: Any) -> PacedRunner:
        return PacedRunner(answer=b"one. two. three.", **options)

    async with running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider:
        (choice,) = (await post(provider, stop=["two"])).json()["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("one. ", "stop")
        assert (await post(provider)).json()["usage"]["completion_tokens"] <= DEFAULT_MAX_TOKENS
    async with running_provider(tmp_path / "b", monkeypatch) as provider:
        response = await post(provider, max_tokens=MAX_CONTEXT)
        assert response.headers["inferd-max-tokens"] == str(MAX_CONTEXT - 6)


async def test_stream_of_prompts_ends_each_choice_after_its_commit_and_shows_the_sum(provider):
    stream = call(provider, prompt=["one", "three"], max_tokens=4, stream=True, stream_options={"include_usage": True})
    await stream.ended()
    assert stream.events[-1] == "[DONE]"
    *parts, last = stream.chunks
    for index, prompt in enumerate((b"one", b"three")):
        mine = [chunk["choices"][0] for chunk in parts if chunk["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in mine) == said([BEGIN, *prompt], 4)
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + ["length"]
    assert all(chunk["usage"] is None for chunk in parts)
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (10, 8)
    assert len(provider.rows("usage")) == 2


async def test_hang_up_ends_all_prompts(provider):
    provider.runner.hold_back()
    stream = call(provider, prompt=["one", "two"], max_tokens=200, stream=True)
    await provider.until(lambda: provider.runner.waits)
    stream.hang_up()
    await stream.ended()
    provider.runner.let_go()
    await provider.idle()
    rows = provider.rows("usage")
    assert len(rows) == 2
    assert all(row["status"] == "cancelled" and row["completion_tokens"] < 200 for row in rows)


async def test_engine_failure_ends_a_text_stream_with_an_error_unbilled(provider):
    provider.runner.hold_back()
    stream = call(provider, prompt=["one", "two"], max_tokens=200, stream=True)
    await provider.until(lambda: provider.runner.waits)
    (replica,) = provider.router.replicas
    stopping = asyncio.create_task(replica.stop())
    await provider.until(lambda: provider.num_in_inbox > 0)
    provider.runner.let_go()
    await stopping
    await stream.ended()
    await provider.idle()
    assert "error" in stream.chunks[-1]
    assert {row["cost_nanousd"] for row in provider.rows("usage") if row["status"] == "failed"} == {0}


async def test_text_completion_of_a_free_deployment_costs_nothing(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=0) as provider:
        response = await post(provider, model=FREE, prompt=["a", "b"], max_tokens=2)
        assert response.json()["usage"]["cost"] == "0.000000000"
        assert provider.rows("holds") == []


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"prompt": ""}, None, None),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": [[]]}, "invalid_value", "prompt"),
        ({"prompt": ["a", 1]}, "invalid_value", "prompt"),
        ({"prompt": ["a", [1]]}, "invalid_value", "prompt"),
        ({"prompt": [258]}, "invalid_value", "prompt"),
        ({"prompt": [[1], [-1]]}, "invalid_value", "prompt[1]"),
        ({"prompt": ["a"] * 65}, "invalid_value", "prompt"),
        ({"prompt": None}, "invalid_type", "prompt"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 17}, "invalid_value", "n"),
        ({"n": 3, "prompt": ["a"] * 43}, "invalid_value", "n"),
        ({"n": 2, "best_of": 1}, "invalid_value", "best_of"),
        ({"best_of": 2}, "unsupported_value", "best_of"),
        ({"n": 2, "best_of": 3}, "unsupported_value", "best_of"),
        ({"logprobs": -1}, "invalid_value", "logprobs"),
        ({"logprobs": 21}, "invalid_value", "logprobs"),
        ({"logprobs": True}, "invalid_type", "logprobs"),
        ({"prompt_logprobs": -1}, "invalid_value", "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "invalid_value", "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "unsupported_value", "prompt_logprobs"),
        ({"logprobs": 1, "echo": True, "stream": True, "n": 2}, "unsupported_value", "n"),
        ({"suffix": "x"}, "unsupported_value", "suffix"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"bad_words": ["a"]}, "unsupported_parameter", "bad_words"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"stop": ["a"] * 17}, "invalid_value", "stop"),
        ({"logit_bias": {"258": 1}}, "invalid_value", "logit_bias"),
        ({"user": "a" * 513}, "invalid_value", "user"),
        ({"max_token": 1}, "unknown_parameter", "max_token"),
        ({"model": ""}, "invalid_value", "model"),
    ],
)
async def test_text_fields_are_honoured_or_refused_by_name(provider, fields, code, param):
    response = await post(provider, **fields)
    if code is None:
        assert response.status_code == 200, "BOS alone is a prompt"
        return
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, param)
    await provider.idle()
    assert set(provider.hold_states()) <= {"voided"}, "a prompt that was good has waited for the other"


async def test_choices_of_prompts_are_numbered_by_prompt_and_each_prompt_is_billed_once(provider):
    response = await post(provider, prompt=["one", "three"], n=2, best_of=2, max_tokens=3, seed=1)
    body = response.json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    texts = [said([BEGIN, *prompt], 3) for prompt in (b"one", b"one", b"three", b"three")]
    assert [choice["text"] for choice in body["choices"]] == texts
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (4 + 6, 4 * 3)
    rows = provider.rows("usage")
    assert len(rows) == 2
    assert sum(row["cost_nanousd"] for row in rows) == cost_of(10, 12)
    stream = call(provider, prompt=["one", "three"], n=2, max_tokens=3, stream=True, echo=True)
    await stream.ended()
    choices = [choice for chunk in stream.chunks for choice in chunk["choices"]]
    by_number = ["".join(choice["text"] for choice in choices if choice["index"] == number) for number in range(4)]
    assert by_number == [f"{echo}{text}" for echo, text in zip(["one", "one", "three", "three"], texts, strict=True)]
    assert sorted(choice["index"] for choice in choices if choice["finish_reason"]) == [0, 1, 2, 3]
    assert stream.events[-1] == "[DONE]"


def logprobs_of(memory: list[int]) -> npt.NDArray[np.float64]:
    logits = FakeRunner.logits_of(memory).astype(np.float64)
    return logits - np.log(np.exp(logits).sum())


async def test_text_logprobs_have_the_legacy_shape(provider):
    prompt = [BEGIN, *b"hello"]
    text = said(prompt, 3)
    (choice,) = (await post(provider, max_tokens=3, logprobs=2)).json()["choices"]
    found = choice["logprobs"]
    assert choice["text"] == "".join(found["tokens"]) == text
    assert found["text_offset"] == [0, 1, 2]
    for index, (token, logprob, top) in enumerate(
        zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True)
    ):
        expected = logprobs_of([*prompt, *text[:index].encode()])
        assert logprob == pytest.approx(expected[ord(token)])
        assert [*top.values()] == pytest.approx(sorted(expected)[:-3:-1])
        assert top[token] == logprob
    stream = call(provider, max_tokens=3, logprobs=2, stream=True)
    await stream.ended()
    parts = [chunk["choices"][0]["logprobs"] for chunk in stream.chunks if chunk["choices"][0]["logprobs"]]
    assert {name: [value for part in parts for value in part[name]] for name in found} == found


async def test_text_logprobs_of_zero_alternatives_are_the_tokens_own(provider):
    (choice,) = (await post(provider, max_tokens=2, logprobs=0)).json()["choices"]
    found = choice["logprobs"]
    pairs = zip(found["tokens"], found["token_logprobs"], strict=True)
    assert found["top_logprobs"] == [{token: logprob} for token, logprob in pairs]


async def test_queue_with_room_for_some_prompts_takes_none_unbilled(provider, monkeypatch):
    """The engine works on the first ones, and ends none, until the last is refused."""
    provider.limit_live_requests(5)
    has_room_for = Backlog.has_room_for

    def let_go_of_the_rest_if_not(self: Backlog, request: AddRequest) -> bool:
        has_room = has_room_for(self, request)
        if not has_room:
            provider.runner.let_go()
        return has_room

    monkeypatch.setattr(Backlog, "has_room_for", let_go_of_the_rest_if_not)
    for fields in ({"prompt": ["one"] * 6}, {"prompt": ["one", "two", "three"], "n": 2}):
        provider.runner.hold_back()
        response = await post(provider, max_tokens=50, **fields)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "server_overloaded")
        assert response.headers["retry-after"]
        await provider.idle()
    assert {row["status"] for row in provider.rows("usage")} == {"failed"}
    assert sum(row["cost_nanousd"] for row in provider.rows("usage")) == 0
    assert set(provider.hold_states()) == {"voided"}
    assert (await post(provider, prompt=["one"] * 5, max_tokens=2)).status_code == 200, "nothing was left behind"


async def test_failed_prompt_voids_the_others(provider, monkeypatch):
    """The caller has got an error, and reads that it was not billed."""
    submit = provider.router.replicas[0].submit
    monkeypatch.setattr(
        provider.router.replicas[0],
        "submit",
        lambda request: submit(replace(request, prompt=(10**6,)) if request.request_id.endswith("-1") else request),
    )
    for streamed in (False, True):
        answer = call(provider, prompt=["one", "two", "three"], max_tokens=5, stream=streamed)
        await answer.ended()
        assert "not billed" in answer.body.decode()
        assert answer.status == (200 if streamed else 500)
        await provider.idle()
    rows = provider.rows("usage")
    assert len(rows) == 6
    assert {(row["status"], row["cost_nanousd"]) for row in rows} == {("failed", 0)}


async def test_openai_sdk_reads_text_completions(provider):
    transport = httpx.ASGITransport(provider.app)
    async with AsyncOpenAI(
        api_key=provider.key, base_url="http://localhost/v1", http_client=httpx.AsyncClient(transport=transport)
    ) as client:
        whole = await client.completions.create(model=PRICED, prompt="hello", max_tokens=5)
        stream = await client.completions.create(model=PRICED, prompt="hello", max_tokens=5, stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert whole.choices[0].text == text == said([BEGIN, *b"hello"], 5)
    assert whole.usage is not None
    assert whole.usage.total_tokens == 11


async def test_prompts_each_count_in_the_limits_and_a_refused_call_gives_all_back(provider, monkeypatch):
    def remaining(response: httpx.Response) -> int:
        return int(response.headers["x-ratelimit-remaining-requests"])

    before = remaining(await post(provider, max_tokens=1))
    assert remaining(await post(provider, prompt=["a", "b", "c"], max_tokens=1)) == before - 3
    refused = await post(provider, prompt=["a", "b"], max_tokens=1, model="local/nothing")
    assert refused.status_code == 404
    assert remaining(await provider.client.post("/tokenize", json={"model": PRICED, "content": "a"})) == before - 5
