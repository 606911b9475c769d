"""The event loop's door to the ledger: snapshots in threads of their own, changes through the writer."""

from __future__ import annotations

import asyncio
import threading

import pytest

from inferd.errors import NotFoundError
from inferd.ledger import operations
from inferd.ledger.client import LedgerClient
from inferd.ledger.writer import LedgerWriter

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
    return operations.create_team(conn, "acme", actor="test", now_ms=1)


async def test_a_change_is_seen_by_the_next_read(client):
    assert (await client.change(create)).team == "acme"
    assert [team.team for team in await client.read(operations.list_teams)] == ["acme"]


async def test_a_mistake_comes_back_and_changes_nothing(client):
    def wrong(conn):
        create(conn)
        return operations.show_team(conn, "nobody", now_ms=1)

    with pytest.raises(NotFoundError):
        await client.change(wrong)
    assert await client.read(operations.list_teams) == []
    with pytest.raises(NotFoundError):
        await client.read(lambda conn: operations.show_team(conn, "nobody", now_ms=1))


async def test_reads_cannot_write(client):
    with pytest.raises(Exception, match="readonly"):
        await client.read(create)


async def test_reports_that_take_long_hold_up_neither_changes_nor_worker_threads(client):
    go_on = threading.Event()
    slow = [asyncio.create_task(client.read(lambda conn: go_on.wait(20))) for _ in range(50)]
    await client.change(create)
    names = {await asyncio.to_thread(lambda: threading.current_thread().name) for _ in range(3)}
    assert not any(name.startswith("ledger-reader") for name in names)
    go_on.set()
    assert all(await asyncio.gather(*slow))
