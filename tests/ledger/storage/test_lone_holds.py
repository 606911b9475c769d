"""A lone hold is applied on its caller's event loop, and never blocks it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from inferd.errors import InsufficientCreditError
from inferd.ledger.storage.group_commit import Command
from inferd.ledger.storage.wal import CHECKPOINT_PAGES
from inferd.ledger.storage.writer import LedgerWriter
from tests.ledger.storage.test_writer import Broken, FullOnce


@dataclass
class Watched:
    """Does what another command does, and remembers on which thread."""

    command: Command
    durable: bool = False
    threads: list[str] = field(default_factory=list)

    def apply(self, conn):
        self.threads.append(threading.current_thread().name)
        return self.command.apply(conn)


class BrokenHere(Broken):
    durable: ClassVar[bool] = False


@pytest.fixture
def writer(store, served):
    served.grant(1_000)
    writer = LedgerWriter(store)
    writer.start()
    yield writer
    writer.stop()
    served.assert_clean()


HERE, WRITER = "MainThread", "ledger-writer"


def run(writer, *commands, together=False):
    """The threads on which the commands were applied, one after the other or in one turn of the event loop."""
    watched = [Watched(command, command.durable) for command in commands]

    async def ask():
        if together:
            await asyncio.gather(*map(writer.execute, watched))
        else:
            for command in watched:
                await writer.execute(command)

    asyncio.run(ask())
    with writer._connection_lock:  # the writer answers before it is done
        return [command.threads for command in watched]


def test_lone_hold_is_applied_on_the_loop_and_its_settlement_by_the_thread(served, writer):
    hold = served.open_hold(5)
    assert run(writer, hold, served.settlement(hold.request_id, 5)) == [[HERE], [WRITER]]
    assert served.credit().balance_nanousd == 995


def test_second_hold_in_one_turn_of_the_loop_is_applied_by_the_thread(served, writer):
    assert run(writer, *(served.open_hold(5) for _ in range(4)), together=True) == [[HERE], *[[WRITER]] * 3]
    # Their group was of three: whoever comes next may not be alone either.
    hold = served.open_hold(5)
    assert run(writer, hold) == [[WRITER]]
    assert run(writer, served.open_hold(5)) == [[HERE]]
    assert served.credit().held_nanousd == 30


def test_lone_hold_without_credit_is_refused(served, writer):
    with pytest.raises(InsufficientCreditError):
        run(writer, served.open_hold(2_000))
    assert served.one("SELECT count(*) FROM holds") == 0


def test_lone_command_that_fails_after_a_change_is_undone(served, writer, caplog):
    with pytest.raises(KeyError):
        asyncio.run(writer.execute(BrokenHere()))
    assert served.one("SELECT count(*) FROM counters") == 0
    assert run(writer, served.open_hold(5)) == [[HERE]]


def test_lone_hold_on_a_locked_ledger_does_not_block_the_loop(store, served, writer):
    command = Watched(served.open_hold(5))

    async def ask(other):
        other.execute("BEGIN IMMEDIATE")
        asking = asyncio.create_task(writer.execute(command))
        turns = 0
        started_s = time.monotonic()
        while time.monotonic() < started_s + 0.1:
            await asyncio.sleep(0.005)
            turns += 1
        assert not asking.done()
        other.execute("ROLLBACK")
        await asking
        return turns

    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        assert asyncio.run(ask(other)) > 3
    assert command.threads == [WRITER]


def test_lone_hold_whose_commit_fails_is_retried_by_the_thread(store, served):
    served.grant(1_000)
    writer = FullOnce(store)
    writer.start()
    assert run(writer, served.open_hold(5)) == [[HERE, WRITER]]
    writer.stop()
    assert served.credit().held_nanousd == 5


def test_lone_hold_never_checkpoints(served, writer):
    """The writer does so between two commands, and until it has, a lone hold is its own to do."""
    found = []
    writer._conn.set_trace_callback(
        lambda sql: found.append((threading.current_thread().name, sql)) if "checkpoint" in sql else None
    )
    threads = [run(writer, served.open_hold(1)) for _ in range(CHECKPOINT_PAGES // 16)]
    assert threads == [[[HERE]]] * (len(threads) - 1) + [[[WRITER]]]
    assert found == [(WRITER, "PRAGMA wal_checkpoint(PASSIVE)")]
    assert run(writer, served.open_hold(1)) == [[HERE]]
