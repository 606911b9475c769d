"""A batch from its upload to its files."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from inferd.ledger import operations
from inferd.serving.batches.batch_context import InputLimits
from inferd.serving.batches.batches import Batches
from tests.fakes import Failure
from tests.serving.batches.customer import Customer, line
from tests.serving.provider import FREE, INPUT_NANOUSD, OUTPUT_NANOUSD, TIMED, prompt_of

pytestmark = pytest.mark.anyio
ENDED = ("completed", "failed", "expired", "cancelled")


async def test_batch_answers_each_line_once_at_half_price_with_the_ledgers_usage(provider, customer):
    """R12, R14, R23"""
    lines = [line(f"line-{number}", f"text {number}", max_tokens=3) for number in range(30)]
    async with provider.batching():
        batch = await customer.create(lines, metadata={"job": "nightly"})
        assert (batch["status"], batch["metadata"]) == ("validating", {"job": "nightly"})
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 30, "completed": 30, "failed": 0}
    assert batch["error_file_id"] is None
    output = await customer.lines_of(batch["output_file_id"])
    assert output.keys() == {each["custom_id"] for each in lines}
    usage = {row["request_id"]: row for row in provider.rows("usage")}
    assert len(usage) == 30
    for answer in output.values():
        response = answer["response"]
        row = usage.pop(response["request_id"])
        assert (answer["error"], response["status_code"], row["service_tier"]) == (None, 200, "batch")
        body = response["body"]
        assert body["object"] == "chat.completion"
        assert body["service_tier"] == "batch"
        used = (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])
        assert used == (row["prompt_tokens"], row["completion_tokens"])
        assert body["usage"]["cost"] == f"0.{row['cost_nanousd']:09d}"
        whole = used[0] * INPUT_NANOUSD + used[1] * OUTPUT_NANOUSD
        assert row["cost_nanousd"] == (whole + 1) // 2
    assert usage == {}


async def test_batch_on_free_and_timed_deployments_completes(provider, customer):
    provider.grant(10**9)
    async with provider.batching():
        batch = await customer.create([line("free", model=FREE), line("timed", model=TIMED)])
        batch = await customer.until(batch["id"], *ENDED)
    output = await customer.lines_of(batch["output_file_id"])
    assert output["free"]["response"]["body"]["usage"]["cost"] == "0.000000000"
    assert "compute_ms" in output["timed"]["response"]["body"]["usage"]


async def test_batch_with_bad_lines_runs_the_others(provider, customer):
    bad = {
        "streams": line("streams", stream=True),
        "unknown": line("unknown", model="no/such"),
        "priority": line("priority", service_tier="priority"),
        "url": line("url") | {"url": "/v1/embeddings"},
        "method": line("method") | {"method": "GET"},
        "field": line("field", temperature=9),
        "long": line("long", "x" * 300),
        "extra": line("extra") | {"metod": "POST"},
    }
    lines = [line("good"), *bad.values(), b"not json", line("good"), b"", b"[1]", b"\xff"]
    async with provider.batching():
        batch = await customer.create(lines)
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 13, "completed": 1, "failed": 12}
    codes = {error["line"]: error["code"] for error in batch["errors"]["data"]}
    assert codes[2] == "unsupported_value"
    assert codes[3] == "model_not_found"
    assert codes[4] == "service_tier_unavailable"
    assert codes[8] == "context_length_exceeded"
    assert (codes[10], codes[11], codes[13]) == ("invalid_json", "duplicate_custom_id", "invalid_type")
    content = await provider.client.get(f"/v1/files/{batch['error_file_id']}/content")
    assert len(content.text.splitlines()) == 12
    assert len(provider.rows("usage")) == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"\n\n", "empty_file"), (b"not json\n", "no_valid_line")],
)
async def test_batch_without_a_valid_line_fails(provider, customer, content, code):
    async with provider.batching():
        batch = await customer.create([content])
        batch = await customer.until(batch["id"], *ENDED)
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", code)
    assert batch["failed_at"] >= batch["created_at"]
    assert batch["output_file_id"] is batch["error_file_id"] is None
    assert [path.name for path in provider.files.folder.glob("*.spool")] == []


async def test_batch_with_too_many_lines_fails(provider, customer):
    """R23"""
    provider.start_batches_anew(limits=InputLimits(max_lines=2))
    async with provider.batching():
        batch = await customer.create([line(str(number)) for number in range(3)])
        batch = await customer.until(batch["id"], *ENDED)
        assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "too_many_lines")
    assert provider.rows("usage") == []


async def test_batch_waits_for_credit_and_goes_on_with_a_grant(provider):
    """R23"""
    cost = (len(prompt_of()) * INPUT_NANOUSD + 200 * OUTPUT_NANOUSD) // 2
    poor = Customer(provider, provider.new_key("poor"))
    provider.grant(5 * cost + cost // 2, "poor")
    async with provider.batching():
        batch = await poor.create([line(f"{number:02}", max_tokens=200) for number in range(12)])
        await provider.until(lambda: len(provider.rows("usage")) >= 5 and provider.completions.num_live == 0)
        await asyncio.sleep(0.1)
        waiting = await poor.get(f"/v1/batches/{batch['id']}")
        assert waiting["status"] == "in_progress"
        assert waiting["request_counts"]["completed"] == len(provider.rows("usage")) < 12
        provider.grant(100 * cost, "poor")
        batch = await poor.until(batch["id"], *ENDED)
    assert batch["request_counts"] == {"total": 12, "completed": 12, "failed": 0}


async def test_batch_that_expires_delivers_its_answers_and_bills_no_other(provider, customer):
    """R23"""
    async with provider.batching():
        batch = await customer.create([line(str(number), max_tokens=200) for number in range(20)])
        await provider.until(lambda: len(provider.rows("usage")) >= 4)
        provider.runner.hold_back()
        await provider.until(lambda: provider.runner.waits)
        provider.ahead_ms = 24 * 3_600_000
        await asyncio.sleep(0.1)
        provider.runner.let_go()
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["status"] == "expired"
    assert batch["expired_at"] - batch["created_at"] >= 24 * 3600
    output = await customer.lines_of(batch["output_file_id"])
    errors = await customer.lines_of(batch["error_file_id"])
    assert output.keys() | errors.keys() == {str(number) for number in range(20)}
    assert not output.keys() & errors.keys()
    assert {error["error"]["code"] for error in errors.values()} == {"batch_expired"}
    billed = [row["request_id"] for row in provider.rows("usage") if row["cost_nanousd"]]
    assert sorted(billed) == sorted(answer["response"]["request_id"] for answer in output.values())


async def test_batch_that_is_cancelled_delivers_its_answers(provider, customer):
    """R23"""
    async with provider.batching():
        batch = await customer.create([line(str(number), max_tokens=200) for number in range(20)])
        await provider.until(lambda: len(provider.rows("usage")) >= 4)
        cancelling = await customer.post(f"/v1/batches/{batch['id']}/cancel")
        assert cancelling["status"] == "cancelling"
        batch = await customer.until(batch["id"], *ENDED)
        await customer.post(f"/v1/batches/{batch['id']}/cancel", 409)
    assert batch["status"] == "cancelled"
    assert [(each["type"], each["object_id"]) for each in provider.rows("events")] == [("batch.cancelled", batch["id"])]
    assert batch["cancelled_at"] >= batch["cancelling_at"]
    output = await customer.lines_of(batch["output_file_id"])
    errors = await customer.lines_of(batch["error_file_id"])
    assert len(output) + len(errors) == 20
    assert {error["error"]["code"] for error in errors.values()} == {"batch_cancelled"}
    billed = [row["request_id"] for row in provider.rows("usage") if row["cost_nanousd"]]
    assert sorted(billed) == sorted(answer["response"]["request_id"] for answer in output.values())


async def test_batch_of_a_suspended_team_waits_and_a_revoked_key_ends_its_lines(provider, customer):
    """R9, R21, R23"""
    who = {"by": operations.Author("test", 1)}
    lines = [line(str(number), max_tokens=20) for number in range(8)]
    async with provider.batching():
        provider.runner.hold_back()
        batch = await customer.create(lines)
        await provider.until(lambda: provider.runner.waits)
        with provider.store.immediate() as conn:
            operations.suspend(conn, "team", ("acme",), **who)
        provider.runner.let_go()
        await provider.until(lambda: provider.completions.num_live == 0)
        await asyncio.sleep(0.1)
        num_before = len(provider.rows("usage"))
        assert 0 < num_before < 8
        with provider.store.immediate() as conn:
            operations.resume(conn, "team", ("acme",), **who)
            other = operations.create_key(conn, "acme", **who)
            operations.revoke_key(conn, provider.key.split("-")[2], **who)
        customer.headers = {"authorization": f"Bearer {other.key}"}
        batch = await customer.until(batch["id"], *ENDED)
    assert (batch["status"], batch["request_counts"]["total"]) == ("completed", 8)
    errors = await customer.lines_of(batch["error_file_id"])
    assert len(errors) == 8 - num_before
    for error in errors.values():
        assert error["response"]["status_code"] == 401
        assert error["response"]["body"]["error"]["code"] == "invalid_api_key"


async def test_line_that_the_engine_fails_at_is_tried_again_and_then_fails(provider, customer):
    """R16, R23"""
    async with provider.batching():
        provider.runner.failures = [Failure(-3)] * 100
        batch = await customer.create([line("a")])
        batch = await customer.until(batch["id"], *ENDED)
    errors = await customer.lines_of(batch["error_file_id"])
    assert errors["a"]["response"]["status_code"] == 500
    assert [row["cost_nanousd"] for row in provider.rows("usage")] == [0, 0, 0]


async def test_answer_that_cannot_be_spooled_is_not_billed_and_runs_again(provider, customer, monkeypatch):
    """R23"""
    pwrite, num_left = os.pwrite, 3

    def full(*arguments):
        nonlocal num_left
        num_left -= 1
        if num_left >= 0:
            raise OSError(errno.ENOSPC, "no space")
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    async with provider.batching():
        batch = await customer.create([line(str(number)) for number in range(6)])
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
    assert len([row for row in provider.rows("usage") if row["cost_nanousd"]]) == 6
    assert len(provider.rows("usage")) > 6


async def test_stop_bills_no_line_that_it_cuts_off_and_the_next_start_goes_on(provider, customer):
    """R16, R23"""
    lines = [line(str(number), max_tokens=100) for number in range(20)]
    async with provider.batching():
        batch = await customer.create(lines)
        await provider.until(lambda: len(provider.rows("usage")) >= 3)
    assert provider.completions.num_live == 0
    seen = {row["request_id"] for row in provider.rows("usage") if row["cost_nanousd"]}
    assert (await customer.get(f"/v1/batches/{batch['id']}"))["status"] == "in_progress"
    provider.start_batches_anew()
    async with provider.batching():
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
    output = await customer.lines_of(batch["output_file_id"])
    billed = {row["request_id"] for row in provider.rows("usage") if row["cost_nanousd"]}
    assert seen <= billed == {answer["response"]["request_id"] for answer in output.values()}
    assert len(billed) == 20


async def test_batch_that_ends_during_a_tick_is_not_started_again(provider, customer, monkeypatch):
    """R20, R23"""
    started = []
    start = Batches._start
    monkeypatch.setattr(Batches, "_start", lambda self, batch, now_ms: started.append(1) or start(self, batch, now_ms))
    ask = Batches._expiry_ms

    async def ask_slowly(self, active):
        now_ms = await ask(self, active)
        await asyncio.sleep(0.05)
        return now_ms

    monkeypatch.setattr(Batches, "_expiry_ms", ask_slowly)
    async with provider.batching():
        for _ in range(5):
            batch = await customer.create([line("a", max_tokens=1)])
            await customer.until(batch["id"], "completed")
        await asyncio.sleep(0.2)
    assert len(started) == 5
