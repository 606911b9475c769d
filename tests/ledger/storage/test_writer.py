"""LedgerWriter: one commit for all queued commands, each fails alone, and every waiter gets an outcome."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import pytest

from inferd.errors import InsufficientCreditError, OverloadedError
from inferd.ledger.audit.run import audit
from inferd.ledger.requests.settlement import HoldResolvedError
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter


class GatedWriter(LedgerWriter):
    """Commits when `gate` is open, and remembers how."""

    def __init__(self, store, **options):
        super().__init__(store, **options)
        self.gate = threading.Event()
        self.at_gate = threading.Event()
        self.commits = []

    def _commit(self, group):
        self.at_gate.set()
        assert self.gate.wait(10)
        self.at_gate.clear()
        (synchronous,) = self._conn.execute("PRAGMA synchronous").fetchone()
        self.commits.append((len(group), {1: "NORMAL", 2: "FULL"}[synchronous]))
        super()._commit(group)


@dataclass(frozen=True)
class Broken:
    """Writes, then fails as a bug does."""

    durable: ClassVar[bool] = True

    def apply(self, conn):
        conn.execute("INSERT INTO counters VALUES ('broken', 'team:broken', '2026', 1, 0, 0)")
        raise KeyError("bug")


@pytest.fixture
def writer(store):
    writer = GatedWriter(store)
    writer.start()
    yield writer
    writer.gate.set()
    writer.stop()


def behind_the_gate(writer, books):
    """A command that is being committed: what is submitted now comes together in the next group."""
    first = writer.submit(books.open_hold(1))
    assert writer.at_gate.wait(10)
    return first


def test_queued_commands_are_committed_together(served, writer):
    served.grant(100)
    behind_the_gate(writer, served)
    futures = [writer.submit(served.open_hold(1)) for _ in range(20)]
    writer.gate.set()
    assert [future.result(10).amount_nanousd for future in futures] == [1] * 20
    assert writer.commits == [(1, "NORMAL"), (20, "NORMAL")]


def test_group_with_a_settlement_is_synced_and_one_of_holds_is_not(served, writer):
    served.grant(100)
    request_id = served.hold(5)
    writer.gate.set()
    writer.submit(served.open_hold(1)).result(10)
    writer.submit(served.settlement(request_id, 5)).result(10)
    writer.submit(served.open_hold(1)).result(10)
    writer.submit(served.void(f"req-{2}")).result(10)
    assert [synchronous for _, synchronous in writer.commits] == ["NORMAL", "FULL", "NORMAL", "FULL"]


def test_command_is_answered_after_its_commit(served, writer):
    served.grant(100)
    future = behind_the_gate(writer, served)
    assert not future.done()
    writer.gate.set()
    assert future.result(10)


def test_failed_commands_leave_the_rest_of_their_group(served, writer, caplog):
    served.grant(10)
    behind_the_gate(writer, served)
    futures = [
        writer.submit(command)
        for command in (
            served.open_hold(4),
            served.open_hold(6),
            Broken(),
            served.settlement("nobody"),
            served.open_hold(5),
        )
    ]
    writer.gate.set()
    errors = [type(future.exception(10)) for future in futures]
    assert errors == [type(None), InsufficientCreditError, KeyError, HoldResolvedError, type(None)]
    assert served.credit().available_nanousd == 0
    assert served.one("SELECT count(*) FROM counters WHERE scope = 'team:broken'") == 0
    assert "Broken() failed and changed nothing" in caplog.text
    served.grant(1)
    writer.submit(served.open_hold(1)).result(10)


def test_group_wakes_each_loop_once(served, writer):
    served.grant(100)

    async def twenty():
        loop = asyncio.get_running_loop()
        calls = []
        call_soon_threadsafe = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args, **kwargs: (calls.append(args), call_soon_threadsafe(*args, **kwargs))
        tasks = [asyncio.ensure_future(writer.execute(served.open_hold(1))) for _ in range(20)]
        await asyncio.sleep(0)
        writer.gate.set()
        holds = await asyncio.gather(*tasks)
        del loop.call_soon_threadsafe
        return len(holds), len(calls)

    behind_the_gate(writer, served)
    assert asyncio.run(twenty()) == (20, 1)


def test_group_wakes_every_waiting_loop(served, writer):
    served.grant(100)
    behind_the_gate(writer, served)
    amounts = []

    def run():
        amounts.append(asyncio.run(writer.execute(served.open_hold(2))).amount_nanousd)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    writer.gate.set()
    for thread in threads:
        thread.join(10)
    assert amounts == [2, 2, 2]


def test_cancelled_caller_does_not_cancel_its_command(served, writer):
    served.grant(100)
    request_id = served.hold(5)

    async def cancelled():
        settling = asyncio.ensure_future(writer.execute(served.settlement(request_id, 5)))
        opening = asyncio.ensure_future(writer.execute(served.open_hold(7)))
        await asyncio.sleep(0)
        settling.cancel()
        opening.cancel()
        writer.gate.set()
        await asyncio.gather(settling, opening, return_exceptions=True)
        await writer.execute(served.open_hold(1))

    behind_the_gate(writer, served)
    asyncio.run(cancelled())
    assert served.one("SELECT state FROM holds WHERE request_id = ?", request_id) == "settled"
    assert served.credit().held_nanousd == 1 + 7 + 1


def test_submitted_command_cannot_be_cancelled(served, writer):
    served.grant(100)
    behind_the_gate(writer, served)
    future = writer.submit(served.open_hold(1))
    assert not future.cancel()
    writer.gate.set()
    assert future.result(10)


def test_command_of_a_closed_loop_is_carried_out(served, writer):
    served.grant(100)

    async def leave():
        asyncio.ensure_future(writer.execute(served.open_hold(3)))  # noqa: RUF006
        await asyncio.sleep(0)

    behind_the_gate(writer, served)
    asyncio.run(leave())
    writer.gate.set()
    writer.submit(served.open_hold(1)).result(10)
    assert served.credit().held_nanousd == 1 + 3 + 1


def test_full_queue_refuses_holds_and_takes_settlements(store, served):
    served.grant(100)
    request_id = served.hold(5)
    writer = GatedWriter(store, max_queued=2)
    writer.start()
    behind_the_gate(writer, served)
    queued = [writer.submit(served.open_hold(1)) for _ in range(2)]
    with pytest.raises(OverloadedError) as refusal:
        writer.submit(served.open_hold(1))
    assert refusal.value.retry_after_s == 1.0
    with pytest.raises(OverloadedError):
        asyncio.run(writer.execute(served.open_hold(1)))
    settling = writer.submit(served.settlement(request_id, 5))
    writer.gate.set()
    writer.stop()
    assert all(future.result(0) for future in queued)
    assert settling.result(0).cost_nanousd == 5


def test_stop_carries_out_queued_commands_and_refuses_later_ones(store, served):
    served.grant(100)
    writer = GatedWriter(store)
    writer.start()
    behind_the_gate(writer, served)
    futures = [writer.submit(served.open_hold(1)) for _ in range(10)]
    stopping = threading.Thread(target=writer.stop)
    stopping.start()
    writer.gate.set()
    stopping.join(10)
    assert all(future.result(0) for future in futures)
    with pytest.raises(OverloadedError, match="shutting down"):
        writer.submit(served.open_hold(1))


def test_locked_file_refuses_holds_and_retries_settlements(tmp_path, lock, served, caplog):
    """Never SQLITE_BUSY to a client, and no lost spend."""
    served.grant(100)
    request_id = served.hold(5)
    store = Store(tmp_path / "data", lock, busy_timeout_s=0.02)
    writer = LedgerWriter(store)
    writer.start()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opening = writer.submit(served.open_hold(1))
        settling = writer.submit(served.settlement(request_id, 5))
        assert isinstance(opening.exception(10), OverloadedError)
        assert not settling.done()
        other.execute("ROLLBACK")
    assert settling.result(10).cost_nanousd == 5
    writer.stop()
    assert "could not be written" in caplog.text
    assert audit(served.conn).clean


class FullOnce(LedgerWriter):
    """Its first commit fails."""

    failures = 0

    def _commit(self, group):
        if not self.failures:
            self.failures += 1
            raise sqlite3.OperationalError("database or disk is full")
        super()._commit(group)


def test_failed_commit_undoes_its_group_and_is_retried(store, served, caplog):
    served.grant(100)
    request_id = served.hold(5)
    writer = FullOnce(store)
    writer.start()
    settling = writer.submit(served.settlement(request_id, 5))
    assert settling.result(10).cost_nanousd == 5
    writer.stop()
    assert writer.failures == 1
    assert served.credit().balance_nanousd == 95
    assert audit(served.conn).clean


def test_broken_file_refuses_settlements(store, served, caplog):
    class Broken(LedgerWriter):
        def _commit(self, group):
            raise sqlite3.DatabaseError("database disk image is malformed")

    served.grant(100)
    writer = Broken(store)
    writer.start()
    error = writer.submit(served.settlement(served.hold(5), 5)).exception(10)
    assert isinstance(error, OverloadedError)
    assert "malformed" in str(error.__cause__)
    writer.stop()


def test_refusal_without_a_change_does_not_replay_the_group(served, writer, monkeypatch):
    """Savepoints only where a command failed half-way: what was applied before is not applied again."""
    applied = []
    apply = type(served.open_hold(1)).apply
    monkeypatch.setattr(
        type(served.open_hold(1)), "apply", lambda command, conn: (applied.append(command), apply(command, conn))[1]
    )
    served.grant(10)
    behind_the_gate(writer, served)
    commands = [served.open_hold(2), served.open_hold(100), served.open_hold(3)]
    futures = [writer.submit(command) for command in commands]
    writer.gate.set()
    assert [type(future.exception(10)) for future in futures] == [type(None), InsufficientCreditError, type(None)]
    assert applied[1:] == commands


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_crashed_writer_thread_refuses_all_pending_commands(store, served, monkeypatch):
    """The group in its hands, what is queued behind it, and who comes afterwards."""

    def gone(folder):
        raise FileNotFoundError(2, "No such file or directory", str(folder))

    served.grant(100)
    request_id = served.hold(5)
    writer = GatedWriter(store, space_check_s=0.0)
    writer.start()
    behind_the_gate(writer, served)
    monkeypatch.setattr("inferd.ledger.storage.data_dir.free_bytes", gone)
    held = [writer.submit(command) for command in (served.open_hold(1), served.settlement(request_id, 5))]
    writer.gate.set()
    errors = [future.exception(10) for future in held]
    assert [type(error) for error in errors] == [OverloadedError, OverloadedError]
    writer.stop()
    with pytest.raises(OverloadedError):
        asyncio.run(writer.execute(served.open_hold(1)))
    assert served.one("SELECT state FROM holds WHERE request_id = ?", request_id) == "held"
