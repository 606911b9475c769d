"""Lines of every endpoint that batches are for: answered as it would, in the class and at the price of batch."""

from __future__ import annotations

import pytest

from inferd.engine.messages import TrafficClass
from inferd.serving.batches.batch_context import InputLimits
from inferd.wire.openai.batches import ENDPOINTS
from tests.serving.batches.customer import Customer
from tests.serving.provider import PRICED, TIMED, chat_body, running_provider

pytestmark = pytest.mark.anyio
ENDED = ("completed", "failed", "expired", "cancelled")

BODIES = {
    "/v1/chat/completions": chat_body(max_tokens=3, logprobs=True),
    "/v1/completions": {"model": PRICED, "prompt": "hello", "max_tokens": 3, "echo": True, "n": 2},
    "/v1/embeddings": {"model": PRICED, "input": ["hello", "you"], "dimensions": 2},
    "/v1/responses": {"model": PRICED, "input": "hello", "max_output_tokens": 3, "metadata": {"a": "b"}},
}
WRONG = {
    "/v1/chat/completions": ({"stream": True}, {"perf_metrics_in_response": True}, {"service_tier": "flex"}),
    "/v1/completions": ({"stream": True}, {"prompt": ["one", "two"]}, {"n": 17}),
    "/v1/embeddings": ({"encoding_format": "int8"}, {"dimensions": 10_000}, {"input": []}),
    "/v1/responses": ({"stream": True}, {"input": "x" * 300}, {"service_tier": "priority"}),
}
CHANGING = ("id", "created", "created_at", "completed_at", "usage", "service_tier", "output", "timings")


def line_of(endpoint, custom_id, **fields):
    return {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": BODIES[endpoint] | fields}


async def run(provider, customer, endpoint, lines):
    async with provider.batching():
        batch = await customer.create(lines, endpoint=endpoint)
        return await customer.until(batch["id"], *ENDED)


def test_every_batch_endpoint_has_a_case_here():
    assert set(BODIES) == set(ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_line_is_answered_as_its_endpoint_at_half_the_price(provider, customer, monkeypatch, endpoint):
    """R12, R14, R23"""
    (replica,) = provider.router.replicas
    classes, submit = [], replica.submit
    monkeypatch.setattr(replica, "submit", lambda request: classes.append(request.traffic_class) or submit(request))
    alone = (await provider.client.post(endpoint, json=BODIES[endpoint])).json()
    alone_row = provider.usage_row()
    batch = await run(provider, customer, endpoint, [line_of(endpoint, "a")])
    assert (batch["status"], batch["endpoint"]) == ("completed", endpoint)
    half = len(classes) // 2  # one of each choice
    assert classes == [TrafficClass.DEFAULT] * half + [TrafficClass.BATCH] * half
    answer = (await customer.lines_of(batch["output_file_id"]))["a"]["response"]
    body = answer["body"]
    assert body.keys() == alone.keys()
    assert {name: body[name] for name in body if name not in CHANGING} == {
        name: alone[name] for name in alone if name not in CHANGING
    }
    assert said(body) == said(alone)
    assert body.get("service_tier") == ("batch" if "service_tier" in alone else None)
    (row,) = (row for row in provider.rows("usage") if row["request_id"] == answer["request_id"])
    assert row["service_tier"] == "batch"
    assert row["cost_nanousd"] == (alone_row["cost_nanousd"] + 1) // 2
    assert body["usage"]["cost"] == f"0.{row['cost_nanousd']:09d}"
    assert {**body["usage"], "cost": 0} == {**alone["usage"], "cost": 0}


def said(body):
    """What differs by an id alone, without it."""
    return [{**item, "id": ""} for item in body.get("output", ())]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_line_of_every_endpoint_is_billed_by_time(provider, customer, endpoint):
    """R14, R23: a million pico-USD a millisecond, and half of it in a batch."""
    provider.grant(10**9)
    batch = await run(provider, customer, endpoint, [line_of(endpoint, "a", model=TIMED)])
    usage = (await customer.lines_of(batch["output_file_id"]))["a"]["response"]["body"]["usage"]
    row = provider.usage_row()
    assert usage["compute_ms"] == row["compute_ms"]
    assert row["cost_nanousd"] == row["compute_ms"] * 500
    assert usage["cost"] == f"0.{row['cost_nanousd']:09d}"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_line_with_fields_of_live_calls_is_refused_by_their_names(provider, customer, endpoint):
    lines = [line_of(endpoint, str(number), **fields) for number, fields in enumerate(WRONG[endpoint])]
    other = next(other for other in ENDPOINTS if other != endpoint)
    batch = await run(provider, customer, endpoint, [line_of(endpoint, "good"), *lines, line_of(other, "other")])
    assert batch["request_counts"] == {"total": 5, "completed": 1, "failed": 4}
    errors = await customer.lines_of(batch["error_file_id"])
    named = [errors[str(number)]["error"]["param"] for number in range(3)] + [errors["other"]["error"]["param"]]
    assert named == [*(next(iter(fields)) for fields in WRONG[endpoint]), "url"]
    assert len(provider.rows("usage")) == 1


async def test_embedding_inputs_of_a_batch_have_one_limit(provider, customer):
    provider.start_batches_anew(limits=InputLimits(max_embedding_inputs=3))
    batch = await run(provider, customer, "/v1/embeddings", [line_of("/v1/embeddings", each) for each in "ab"])
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "too_many_inputs")
    assert provider.rows("usage") == []


async def test_line_that_its_model_cannot_serve_is_in_the_error_file(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, is_causal=False) as provider:
        customer = Customer(provider)
        batch = await run(provider, customer, "/v1/responses", [line_of("/v1/responses", "a")])
        assert (batch["status"], batch["errors"]["data"][1]["code"]) == ("failed", "model_not_supported")
        provider.start_batches_anew()
        batch = await run(provider, customer, "/v1/embeddings", [line_of("/v1/embeddings", "a")])
        assert batch["status"] == "completed"
