"""Faults and changes that meet a batch while it waits or runs."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import replace

import pytest

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.terms.expiry_clock import PauseClock
from inferd.ledger.terms.limits import team_limits
from inferd.plans import SHIPPED
from inferd.serving.batches.spool import Spool
from inferd.serving.file_store import FileStore
from tests.serving.batches.customer import Customer, jsonl, line
from tests.serving.provider import FREE, INPUT_NANOUSD, OUTPUT_NANOUSD, PRICED, prompt_of

pytestmark = pytest.mark.anyio
ENDED = ("completed", "failed", "expired", "cancelled")
DAY_MS = 86_400_000
WHO = {"by": operations.Author("test", 1)}


def lines(count, **fields):
    return [line(str(number), max_tokens=200, **fields) for number in range(count)]


async def held_back(provider, num_done=4):
    """Some lines have ended and are settled, others run, and none of these goes on."""
    await provider.until(lambda: len(provider.rows("usage")) >= num_done)
    provider.runner.hold_back()
    await provider.until(lambda: provider.runner.waits)
    await provider.until(lambda: provider.completions.num_live == provider.runner.num_samplers + provider.num_in_inbox)


def billed(provider):
    return sorted(row["request_id"] for row in provider.rows("usage") if row["cost_nanousd"])


async def assert_each_line_once(provider, customer, batch, count):
    """In one of the two files; those that were answered are those that were billed."""
    output = await customer.lines_of(batch["output_file_id"])
    errors = await customer.lines_of(batch["error_file_id"])
    assert not output.keys() & errors.keys()
    assert output.keys() | errors.keys() == {str(number) for number in range(count)}
    assert sorted(answer["response"]["request_id"] for answer in output.values()) == billed(provider)
    assert batch["request_counts"] == {"total": count, "completed": len(output), "failed": len(errors)}
    return output, errors


async def test_running_lines_of_a_cancelled_batch_end_and_are_billed(provider, customer):
    """R23"""
    async with provider.batching():
        batch = await customer.create(lines(20))
        await held_back(provider)
        num_before, num_live = len(billed(provider)), provider.completions.num_live
        assert num_live
        await customer.post(f"/v1/batches/{batch['id']}/cancel")
        await asyncio.sleep(0.1)
        assert (await customer.get(f"/v1/batches/{batch['id']}"))["status"] == "cancelling"
        provider.runner.let_go()
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["status"] == "cancelled"
    output, errors = await assert_each_line_once(provider, customer, batch, 20)
    assert num_before + num_live <= len(output) < 20
    assert {error["error"]["code"] for error in errors.values()} == {"batch_cancelled"}


async def test_running_lines_are_cut_off_unbilled_after_the_cancel_grace(provider, customer):
    """R23"""
    provider.start_batches_anew(cancel_grace_s=0.05)
    async with provider.batching():
        batch = await customer.create(lines(20))
        await held_back(provider)
        before = billed(provider)
        await customer.post(f"/v1/batches/{batch['id']}/cancel")
        await asyncio.sleep(0.2)
        provider.runner.let_go()
        batch = await customer.until(batch["id"], *ENDED)
    output, _ = await assert_each_line_once(provider, customer, batch, 20)
    assert len(output) == len(before)


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_batch_of_a_suspended_team_ends_though_it_was_never_validated(provider, customer, end):
    """R9, R23"""
    batch = await customer.create(lines(3))
    with provider.store.immediate() as conn:
        if end == "cancelled":
            operations.cancel_batch(conn, batch["id"], **WHO)
        operations.suspend(conn, "team", ("acme",), **WHO)
    provider.ahead_ms = DAY_MS if end == "expired" else 0
    async with provider.batching():
        await provider.until(lambda: provider.rows("batches")[0]["status"] in ENDED)
    with provider.store.immediate() as conn:
        operations.resume(conn, "team", ("acme",), **WHO)
    batch = await customer.get(f"/v1/batches/{batch['id']}")
    assert (batch["status"], batch["request_counts"]["failed"]) == (end, 3)
    _, errors = await assert_each_line_once(provider, customer, batch, 3)
    assert {error["error"]["code"] for error in errors.values()} == {f"batch_{end}"}


async def test_doubted_clock_expires_neither_batches_nor_files(provider, customer):
    """R20, R23"""
    async with provider.batching() as batches:
        provider.runner.hold_back()
        batch = await customer.create(lines(3))
        await provider.until(lambda: provider.runner.waits)
        await provider.writer.execute(PauseClock("it leapt"))
        provider.ahead_ms = 40 * DAY_MS
        await batches.expire_files()
        await asyncio.sleep(0.1)
        provider.runner.let_go()
        batch = await customer.until(batch["id"], *ENDED)
        await batches.expire_files()
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 3)
    assert await customer.lines_of(batch["output_file_id"])


async def test_files_of_a_batch_are_deleted_30_days_after_its_end(provider, customer):
    """R23: what was wrong with lines quotes them, so it goes with the input file."""
    async with provider.batching() as batches:
        batch = await customer.create([*lines(2), line("bad", temperature=9)])
        batch = await customer.until(batch["id"], *ENDED)
        assert {path.suffix for path in provider.files.folder.iterdir()} == {"", ".errors"}
        provider.ahead_ms = 30 * DAY_MS - 60_000
        await batches.expire_files()
        assert len((await customer.get("/v1/files"))["data"]) == 3
        provider.ahead_ms = 30 * DAY_MS + 60_000
        await batches.expire_files()
    assert list(provider.files.folder.iterdir()) == []
    assert (await customer.get("/v1/files"))["data"] == []
    for name in ("input_file_id", "output_file_id", "error_file_id"):
        await customer.get(f"/v1/files/{batch[name]}", 404)
        await customer.get(f"/v1/files/{batch[name]}/content", 404)
    assert (await customer.get(f"/v1/batches/{batch['id']}"))["errors"] is None


async def test_expired_input_file_is_kept_while_its_batch_reads_it(provider, customer):
    """R23: and one whose uploader wants it gone earlier goes right after."""
    form = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    upload = {"files": {"file": ("in.jsonl", jsonl(lines(6)))}, "data": form}
    file = await customer.post("/v1/files", **upload)
    assert file["expires_at"] - file["created_at"] == 3600
    async with provider.batching() as batches:
        provider.runner.hold_back()
        body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = await customer.post("/v1/batches", json=body)
        await provider.until(lambda: provider.runner.waits)
        provider.ahead_ms = 2 * 3_600_000
        await batches.expire_files()
        await customer.get(f"/v1/files/{file['id']}")
        provider.runner.let_go()
        batch = await customer.until(batch["id"], *ENDED)
        await batches.expire_files()
    assert batch["request_counts"]["completed"] == 6
    await customer.get(f"/v1/files/{file['id']}", 404)
    await customer.get(f"/v1/files/{batch['output_file_id']}")


async def test_deleted_input_file_takes_its_error_list_along(provider, customer):
    """R23"""
    async with provider.batching():
        batch = await customer.create([line("a"), line("bad", temperature=9)])
        batch = await customer.until(batch["id"], *ENDED)
        response = await provider.client.delete(f"/v1/files/{batch['input_file_id']}")
    assert response.status_code == 200
    assert [path.name for path in provider.files.folder.glob("*.errors")] == []


@pytest.mark.parametrize("when", ["validating", "running", "stopped"])
async def test_batch_whose_input_file_vanishes_fails_and_delivers_its_answers(provider, customer, when):
    """R23"""
    if when == "validating":
        batch = await customer.create(lines(20))
    else:
        async with provider.batching():
            batch = await customer.create(lines(20))
            await provider.until(lambda: len(provider.rows("usage")) >= 2)
            if when == "running":
                provider.files.remove(batch["input_file_id"])
                batch = await customer.until(batch["id"], *ENDED)
        provider.start_batches_anew()
    provider.files.remove(batch["input_file_id"])
    async with provider.batching():
        batch = await customer.until(batch["id"], *ENDED)
    if when == "running":  # it was open, so all lines were run
        assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 20)
        return
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "file_not_found")
    assert batch["failed_at"] is not None
    output = await customer.lines_of(batch["output_file_id"])
    assert sorted(answer["response"]["request_id"] for answer in output.values()) == billed(provider)
    assert (len(output) > 0) == (when == "stopped")
    await customer.get(f"/v1/files/{batch['input_file_id']}/content", 404)


async def test_lines_of_a_removed_model_are_in_the_error_file(provider, customer):
    mixed = [line(str(number), model=FREE if number % 2 else PRICED, max_tokens=100) for number in range(20)]
    async with provider.batching():
        batch = await customer.create(mixed)
        await provider.until(lambda: len(provider.rows("usage")) >= 2)
    gone = provider.router._deployments.pop(FREE)
    provider.start_batches_anew()
    async with provider.batching():
        batch = await customer.until(batch["id"], *ENDED)
    provider.router._deployments[FREE] = gone
    output = await customer.lines_of(batch["output_file_id"])
    errors = await customer.lines_of(batch["error_file_id"])
    assert output.keys() | errors.keys() == {str(number) for number in range(20)}
    assert errors
    for number, error in errors.items():
        assert int(number) % 2
        assert error["response"]["status_code"] == 404
        assert error["response"]["request_id"].startswith("req_")
        assert error["response"]["body"]["error"]["code"] == "model_not_found"


async def test_batch_that_waits_for_credit_keeps_few_lines_waiting(provider):
    """Each look at the ledger lets them try again; no more of them are taken up meanwhile."""
    poor = Customer(provider, provider.new_key("poor"))
    async with provider.batching() as batches:
        batch = await poor.create(lines(100))
        await poor.until(batch["id"], "in_progress")
        (run, _) = batches._runs[batch["id"]]
        await provider.until(lambda: run._gate.num_refused > 0)
        for _ in range(30):
            run.refresh(run._batch, now_ms=0, changed=True)
            await asyncio.sleep(0.01)
        (replica,) = provider.router.replicas
        assert 0 < len(run._lines) <= replica.n_parallel + 3
        provider.grant(10**9, "poor")
        batch = await poor.until(batch["id"], *ENDED)
    assert batch["request_counts"] == {"total": 100, "completed": 100, "failed": 0}


async def test_lines_that_wait_for_credit_end_when_their_model_is_removed(provider):
    cost = (len(prompt_of()) * INPUT_NANOUSD + 200 * OUTPUT_NANOUSD) // 2
    poor = Customer(provider, provider.new_key("poor"))
    provider.grant(3 * cost, "poor")
    async with provider.batching():
        batch = await poor.create(lines(12))
        await provider.until(lambda: len(provider.rows("usage")) >= 3 and provider.completions.num_live == 0)
        await asyncio.sleep(0.1)
        gone = provider.router._deployments.pop(PRICED)
        provider.grant(100 * cost, "poor")
        batch = await poor.until(batch["id"], *ENDED)
        provider.router._deployments[PRICED] = gone
    _, errors = await assert_each_line_once(provider, poor, batch, 12)
    assert {error["response"]["body"]["error"]["code"] for error in errors.values()} == {"model_not_found"}


async def test_expired_key_ends_the_remaining_lines(provider):
    """R21, R23"""
    now_ms = wall_clock_ms()
    customer = Customer(provider, provider.new_key("acme", expires_at_ms=now_ms + 3_600_000))
    async with provider.batching():
        batch = await customer.create(lines(40))
        await held_back(provider)
        provider.ahead_ms = 2 * 3_600_000
        provider.runner.let_go()
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["status"] == "completed"
    output, errors = await assert_each_line_once(provider, customer, batch, 40)
    assert output
    assert {error["response"]["status_code"] for error in errors.values()} == {401}
    assert all("expired" in error["response"]["body"]["error"]["message"] for error in errors.values())


async def test_batches_of_two_teams_share_idle_capacity(provider, customer):
    """A team that came later, with few lines, need not wait for the end of another's many."""
    other = Customer(provider, provider.new_key("late"))
    provider.grant(10**6, "late")
    async with provider.batching():
        provider.runner.hold_back()
        many = await customer.create([line(str(number), max_tokens=8) for number in range(80)])
        await provider.until(lambda: provider.runner.waits)
        few = await other.create([line(str(number), max_tokens=8) for number in range(20)])
        await other.until(few["id"], "in_progress")
        provider.runner.let_go()
        for who, batch in ((other, few), (customer, many)):
            await who.until(batch["id"], "completed")
    teams = [row["team"] for row in provider.rows("usage")]
    before_the_last = teams[: len(teams) - teams[::-1].index("late")]
    assert before_the_last.count("acme") <= 2 * 20


@pytest.mark.parametrize("step", ["spool of the validation", "errors", "output"])
async def test_batch_waits_for_a_full_disk_at_every_step(provider, customer, monkeypatch, step):
    """R23"""
    provider.start_batches_anew(retry_ticks=2)
    finish, num_refused = FileStore.finish, 0
    ending = {"spool of the validation": ".spool", "errors": ".errors", "output": "-output"}[step]

    def full(self, name, file):
        nonlocal num_refused
        if name.endswith(ending) and num_refused < 2:
            num_refused += 1
            self.give_up(name, file)
            raise OSError(errno.ENOSPC, "no space")
        return finish(self, name, file)

    monkeypatch.setattr(FileStore, "finish", full)
    async with provider.batching():
        batch = await customer.create([*lines(5), line("bad", temperature=9)])
        batch = await customer.until(batch["id"], *ENDED)
    assert num_refused == 2
    assert batch["request_counts"] == {"total": 6, "completed": 5, "failed": 1}
    assert len(batch["errors"]["data"]) == 1
    assert len(billed(provider)) == 5
    assert not [path for path in provider.files.folder.iterdir() if path.suffix in (".partial", ".spool")]


async def test_refused_lines_that_cannot_be_spooled_hold_no_slot(provider, customer, monkeypatch):
    provider.start_batches_anew(retry_ticks=1)
    other = Customer(provider, provider.new_key("acme"))
    append, num_left = Spool.append, 30

    async def full(self, record):
        nonlocal num_left
        if not record.is_answer and num_left > 0:
            num_left -= 1
            raise OSError(errno.ENOSPC, "no space")
        await append(self, record)

    monkeypatch.setattr(Spool, "append", full)
    async with provider.batching():
        provider.runner.hold_back()
        batch = await other.create(lines(20))
        await provider.until(lambda: provider.runner.waits)
        with provider.store.immediate() as conn:
            operations.revoke_key(conn, other.headers["authorization"].split("-")[2], **WHO)
        provider.runner.let_go()
        batch = await customer.until(batch["id"], *ENDED)
    assert num_left == 0
    _, errors = await assert_each_line_once(provider, customer, batch, 20)
    assert errors


async def test_full_disk_refuses_an_upload_and_keeps_nothing_of_it(provider, customer, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    error = await customer.upload(b"x" * 100, 503)
    assert error["error"]["code"] == "server_overloaded"
    assert list(provider.files.folder.iterdir()) == []
    assert provider.rows("files") == []


async def test_batch_queued_tokens_limit_is_the_tiers(provider, customer):
    """R15"""
    most = 3 * len(prompt_of()) + 1
    tiers = tuple(replace(tier, batch_queued_tokens=most) for tier in SHIPPED.tiers)
    with provider.store.immediate() as conn:
        operations.apply_plans(conn, replace(SHIPPED, tiers=tiers), **WHO)
    async with provider.batching():
        provider.runner.hold_back()
        first = await customer.create(lines(2))
        await customer.until(first["id"], "in_progress")
        second = await customer.until((await customer.create(lines(2)))["id"], *ENDED)
        assert (second["status"], second["errors"]["data"][0]["code"]) == ("failed", "token_limit_exceeded")
        third = await customer.create(lines(1))
        await customer.until(third["id"], "in_progress")
        provider.runner.let_go()
        await customer.until(first["id"], "completed")
        await customer.until(third["id"], "completed")
    with provider.store.reading() as conn:
        shown = {row.name: (row.value, row.source) for row in team_limits(conn, "acme", 2).rows()}
    assert shown["prompt tokens in batches that have not ended"] == (most, "tier 1")
