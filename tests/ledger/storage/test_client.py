"""LedgerClient: snapshots in reader threads, one report per team at a time, changes through the writer."""

from __future__ import annotations

import asyncio
import threading

import pytest

from inferd.errors import NotFoundError, RateLimitError
from inferd.ledger import operations
from inferd.ledger.storage.client import LedgerClient
from inferd.ledger.storage.writer import LedgerWriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def client(store):
    writer = LedgerWriter(store)
    writer.start()
    client = LedgerClient(store, writer)
    yield client
    client.close()
    writer.stop()


def create(conn):
    return operations.create_team(conn, "acme", by=operations.Author("test", 1))


async def test_change_is_seen_by_the_next_read(client):
    assert (await client.change(create)).team == "acme"
    assert [team.team for team in await client.read(operations.list_teams)] == ["acme"]


async def test_change_that_raises_changes_nothing(client):
    def wrong(conn):
        create(conn)
        return operations.show_team(conn, "nobody", now_ms=1)

    with pytest.raises(NotFoundError):
        await client.change(wrong)
    assert await client.read(operations.list_teams) == []
    with pytest.raises(NotFoundError):
        await client.read(lambda conn: operations.show_team(conn, "nobody", now_ms=1))


async def test_read_that_writes_is_refused(client):
    with pytest.raises(Exception, match="readonly"):
        await client.read(create)


async def test_reports_of_one_team_run_one_at_a_time_beside_others(client):
    go_on, at_once, most = threading.Event(), [], []

    def slow(conn):
        at_once.append(1)
        most.append(len(at_once))
        assert go_on.wait(20)
        at_once.pop()

    greedy = [asyncio.create_task(client.report("greedy", slow)) for _ in range(64)]
    assert await client.report("other", lambda conn: "told") == "told"
    with pytest.raises(RateLimitError, match="has 64 reports in progress") as refusal:
        await client.report("greedy", slow)
    assert (refusal.value.code, refusal.value.retry_after_s) == ("too_many_reports", 1.0)
    go_on.set()
    await asyncio.gather(*greedy)
    assert set(most) == {1}
    assert await client.report("greedy", lambda conn: "again") == "again"
    assert len(client._team_locks) == 0


async def test_team_lock_is_held_until_a_cancelled_report_has_ended(client):
    go_on, began = threading.Event(), threading.Event()
    left = asyncio.create_task(client.report("acme", lambda conn: (began.set(), go_on.wait(20))))
    await asyncio.to_thread(began.wait, 20)
    left.cancel()
    following = asyncio.create_task(client.report("acme", lambda conn: "told"))
    assert await client.report("other", lambda conn: "told") == "told"
    assert not following.done()
    go_on.set()
    assert await following == "told"
    with pytest.raises(asyncio.CancelledError):
        await left


async def test_report_that_fails_releases_the_team_lock(client):
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await client.report("acme", lambda conn: operations.show_team(conn, "nobody", now_ms=1))
    assert len(client._team_locks) == 0


async def test_long_reads_delay_neither_changes_nor_worker_threads(client):
    go_on = threading.Event()
    slow = [asyncio.create_task(client.read(lambda conn: go_on.wait(20))) for _ in range(50)]
    await client.change(create)
    names = {await asyncio.to_thread(lambda: threading.current_thread().name) for _ in range(3)}
    assert not any(name.startswith("ledger-reader") for name in names)
    go_on.set()
    assert all(await asyncio.gather(*slow))
