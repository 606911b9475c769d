"""Usage in every chunk, and the timings at the end of an answer, of chats and text completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serving.provider import PRICED, chat_body

pytestmark = pytest.mark.anyio

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat_body(max_tokens=5),
    "/v1/completions": {"model": PRICED, "prompt": "abc", "max_tokens": 5},
}
TIMINGS = {"cache_n", "prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second"}
TIMINGS |= {"predicted_n", "predicted_ms", "predicted_per_token_ms", "predicted_per_second"}


async def chunks(provider, path: str, **fields: Any) -> list[dict[str, Any]]:
    answer = await provider.client.post(path, json=BODIES[path] | {"stream": True} | fields)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("n", [1, 2])
async def test_continuous_usage_counts_up_to_the_bill_in_every_chunk(provider, path, n):
    options = {"include_usage": True, "continuous_usage_stats": True}
    *running, last = await chunks(provider, path, stream_options=options, n=n)
    bill = last["usage"]
    assert last["choices"] == []
    counts = [chunk["usage"]["completion_tokens"] for chunk in running]
    assert counts == sorted(counts)
    assert (counts[0] <= 1, counts[-1]) == (True, bill["completion_tokens"])
    for chunk in running:
        usage = chunk["usage"]
        assert set(usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}
        assert usage["prompt_tokens"] == bill["prompt_tokens"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert "cost" in bill


@pytest.mark.parametrize("path", BODIES)
async def test_continuous_usage_without_the_usage_chunk_is_named_as_ignored(provider, path):
    body = BODIES[path] | {"stream": True, "stream_options": {"continuous_usage_stats": True}}
    answer = await provider.client.post(path, json=body)
    assert answer.headers["inferd-ignored"] == "stream_options.continuous_usage_stats"
    assert "prompt_tokens" not in answer.text


@pytest.mark.parametrize("path", BODIES)
async def test_timings_are_in_the_whole_answer_and_in_the_last_chunk_only(provider, path):
    whole = (await provider.client.post(path, json=BODIES[path])).json()
    *others, last = await chunks(provider, path)
    *chunks_before, with_usage = await chunks(provider, path, stream_options={"include_usage": True})
    for end in (whole, last, with_usage):
        times = end["timings"]
        assert set(times) == TIMINGS
        assert times["predicted_n"] == 5
        assert times["prompt_ms"] >= 0.0
        assert times["predicted_per_second"] == pytest.approx(5e3 / times["predicted_ms"])
    assert whole["timings"]["prompt_n"] + whole["timings"]["cache_n"] == whole["usage"]["prompt_tokens"]
    assert whole["timings"]["cache_n"] == whole["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert not [chunk for chunk in (*others, *chunks_before) if "timings" in chunk]


async def test_call_of_several_prompts_has_no_timings(provider):
    body = BODIES["/v1/completions"] | {"prompt": ["a", "b"]}
    assert "timings" not in (await provider.client.post("/v1/completions", json=body)).json()
