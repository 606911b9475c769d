"""`echo` with `logprobs`, and `prompt_logprobs`: shapes, bills and refusals, with everything but weights and socket."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from inferd.serving.endpoints import prompt, text_completions
from tests.fakes import BEGIN, END, FakeRunner
from tests.server.asgi_call import AsgiCall
from tests.serving.provider import PRICED, PacedRunner, Provider, cost_of, running_provider

pytestmark = pytest.mark.anyio

HELLO = [BEGIN, *b"hello"]


async def post(provider: Provider, **fields: Any) -> httpx.Response:
    body = {"model": PRICED, "prompt": "hello", "echo": True, "logprobs": 2, "max_tokens": 2, **fields}
    return await provider.client.post("/v1/completions", json=body)


async def chat(provider: Provider, **fields: Any) -> httpx.Response:
    body = {"model": PRICED, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, **fields}
    return await provider.client.post("/v1/chat/completions", json=body)


def logprob_of(memory: list[int], token_id: int) -> float:
    logits = FakeRunner.logits_of(memory).astype(np.float64)
    return float(logits[token_id] - np.log(np.exp(logits).sum()))


def expected(token_ids: list[int]) -> list[Any]:
    """Log-probability of each token given those before it."""
    return [
        pytest.approx(logprob_of(token_ids[:place], token_ids[place]), abs=1e-6) for place in range(1, len(token_ids))
    ]


def said(token_ids: list[int], n: int) -> bytes:
    return FakeRunner.continuation(token_ids, n)


async def test_echoed_logprobs_are_those_of_prompt_and_completion(provider):
    (choice,) = (await post(provider)).json()["choices"]
    answer = said(HELLO, 2)
    found = choice["logprobs"]
    assert choice["text"] == "hello" + answer.decode()
    assert found["tokens"] == ["<|begin|>", *"hello", *answer.decode()]
    assert found["token_logprobs"] == [None, *expected([*HELLO, *answer])]
    assert found["text_offset"] == [0, 0, 1, 2, 3, 4, 5, 6]
    assert found["top_logprobs"][0] is None
    lists = (found[name][1:] for name in ("tokens", "token_logprobs", "top_logprobs"))
    for token, logprob, top in zip(*lists, strict=True):
        assert top[token] == logprob
        assert 2 <= len(top) <= 3
        assert max(top.values()) == next(iter(top.values())), "the best one comes first"
    assert "prompt_logprobs" not in choice


async def test_lm_evals_request_has_one_token_behind_the_prompt_even_if_it_ends_the_answer(tmp_path, monkeypatch):
    """lm-eval cuts the last token off, whatever it is."""

    def make_runner(**options: Any) -> PacedRunner:
        return PacedRunner(answer=b"", **options)

    async with running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider:
        response = await post(provider, prompt=[[104, 105]], max_tokens=1, logprobs=1, temperature=0, seed=1234)
        (choice,) = response.json()["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("hi", "stop")
        assert choice["logprobs"]["tokens"] == ["h", "i", ""]
        assert choice["logprobs"]["token_logprobs"][1:] == expected([104, 105, END])
        assert choice["logprobs"]["text_offset"] == [0, 1, 2]


async def test_no_token_is_sampled_and_billed_for_max_tokens_0(provider):
    response = await post(provider, max_tokens=0)
    body = response.json()
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("hello", "length")
    assert choice["logprobs"]["token_logprobs"] == [None, *expected(HELLO)]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (6, 0)
    row = provider.usage_row()
    assert (row["cost_nanousd"], row["status"]) == (cost_of(6, 0), "completed")
    assert (await post(provider, max_tokens=0, logprobs=None)).json()["choices"][0]["text"] == "hello"
    refused = await post(provider, max_tokens=0, echo=False)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_tokens")


async def test_scored_prompt_is_billed_uncached_though_it_is_cached(tmp_path, monkeypatch):
    long = "a long prompt, which is in the cache after the first time"
    monkeypatch.setattr(Provider, "reuses", True)
    async with running_provider(tmp_path, monkeypatch) as provider:
        for fields in ({"echo": False, "logprobs": None}, {}):
            usage = (await post(provider, prompt=long, **fields)).json()["usage"]
            assert usage["prompt_tokens_details"]["cached_tokens"] == 0
        again = (await post(provider, prompt=long, echo=False)).json()["usage"]
        assert again["prompt_tokens_details"]["cached_tokens"] == len(long)
        costs = [row["cost_nanousd"] for row in provider.rows("usage")]
        assert costs[:2] == [cost_of(1 + len(long), 2)] * 2


async def test_every_choice_of_a_prompt_shows_its_logprobs_and_it_is_billed_once(provider):
    body = (await post(provider, prompt=["one", "three"], n=2, prompt_logprobs=0)).json()
    for index, text in enumerate([b"one", b"one", b"three", b"three"]):
        choice, token_ids = body["choices"][index], [BEGIN, *text]
        assert choice["index"] == index
        assert choice["logprobs"]["token_logprobs"] == [None, *expected([*token_ids, *said(token_ids, 2)])]
        first, *others = choice["prompt_logprobs"]
        assert first is None
        assert [place[str(token)]["logprob"] for token, place in zip(text, others, strict=True)] == expected(token_ids)
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (4 + 6, 4 * 2)
    assert sum(row["cost_nanousd"] for row in provider.rows("usage")) == cost_of(10, 8)


async def test_stream_shows_the_prompt_with_its_logprobs_first(provider):
    whole = (await post(provider, prompt=["<|begin|>hé", "x"])).json()["choices"]
    headers = {"authorization": f"Bearer {provider.key}"}
    fields = {"model": PRICED, "prompt": ["<|begin|>hé", "x"], "echo": True, "logprobs": 2, "max_tokens": 2}
    body = json.dumps({**fields, "stream": True}).encode()
    stream = AsgiCall(provider.app, "POST", "/v1/completions", headers=headers, body=body)
    await stream.ended()
    for index, choice in enumerate(whole):
        mine = [c for chunk in stream.chunks for c in chunk["choices"] if c["index"] == index]
        assert "".join(c["text"] for c in mine) == choice["text"]
        parts = [c["logprobs"] for c in mine if c["logprobs"]]
        joined = {name: [value for part in parts for value in part[name]] for name in choice["logprobs"]}
        assert joined == choice["logprobs"]
    assert stream.events[-1] == "[DONE]"


async def test_prompt_logprobs_of_a_chat_are_those_of_its_rendered_prompt(provider):
    body = (await chat(provider, prompt_logprobs=1, n=2)).json()
    places = body["prompt_logprobs"]
    assert len(places) == body["usage"]["prompt_tokens"]
    assert places[0] is None
    token_ids = [BEGIN, *(int(next(iter(place))) for place in places[1:])]
    for place, logprob in zip(places[1:], expected(token_ids), strict=True):
        own, *others = place.values()
        assert own["logprob"] == logprob
        assert others == [] if own["rank"] == 1 else [others[0]["rank"]] == [1]
    assert "hi" in bytes(token_id for token_id in token_ids if token_id < 256).decode()
    assert "prompt_logprobs" not in (await chat(provider)).json()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "max_tokens": 0}, "max_tokens"),
    ],
)
async def test_prompt_logprobs_of_a_chat_are_refused_by_name(provider, fields, param):
    response = await chat(provider, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_prompt_logprobs_0_in_a_stream_are_named_as_ignored(provider):
    response = await chat(provider, prompt_logprobs=0, stream=True)
    assert (response.status_code, response.headers["inferd-ignored"]) == (200, "prompt_logprobs")
    assert b"prompt_logprobs" not in response.content


async def test_answer_with_too_many_logprobs_is_refused_before_it_is_computed(provider, monkeypatch):
    monkeypatch.setattr(text_completions, "MAX_PROMPT_LOGPROBS", 36)
    assert prompt.MAX_PROMPT_LOGPROBS == 2**18
    assert (await post(provider, prompt=["hello", "hello"])).status_code == 200, "2 prompts of 6 tokens, 3 numbers each"
    for fields in ({"prompt": ["hello", "hello!"]}, {"n": 3}, {"logprobs": 6}):
        error = (await post(provider, **fields)).json()["error"]
        assert (error["code"], error["param"]) == ("invalid_value", "logprobs")
    error = (await post(provider, prompt_logprobs=20)).json()["error"]
    assert error["param"] == "prompt_logprobs"
    assert "asks for 126 log-probabilities of a prompt of 6 tokens; this answer has room for 36" in error["message"]
    await provider.idle()
    assert sum(row["completion_tokens"] for row in provider.rows("usage")) == 4
