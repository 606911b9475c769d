"""A server's ledger under load in a process that is killed: run by test_crash.py.

Arguments: data folder, kind of commit ("hold", "settle", "grant", "expiry" or "refund"), "before" or "after", which one
of that kind kills. Requests go on in several streams, while credit is granted, expires and is refunded.
Prints `ready`, then a line for each thing that was answered: `settle ID`, `grant ID NANOUSD`, `refund TXN NANOUSD`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from inferd.attribution import Attribution
from inferd.ledger import operations
from inferd.ledger.credit.grants import ExpireGrants
from inferd.ledger.requests.holds import OpenHold
from inferd.ledger.requests.settlement import SettleHold, begin_epoch
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter
from inferd.price import Price
from inferd.usage import Usage

NOW_MS = 1_795_176_000_000
STREAMS = 8
REFUNDED_NANOUSD = 3


@dataclass(frozen=True)
class Change:
    """An operation as the admin API has it carried out."""

    durable: ClassVar[bool] = True
    kind: str
    operation: Callable[[sqlite3.Connection], Any]

    def apply(self, conn: sqlite3.Connection) -> Any:
        return self.operation(conn)


def kind_of(command: Any) -> str:
    kinds = {OpenHold: "hold", SettleHold: "settle", ExpireGrants: "expiry"}
    return command.kind if isinstance(command, Change) else kinds[type(command)]


class KilledWriter(LedgerWriter):
    """Ends the process at the chosen commit, as a power switch would."""

    def __init__(self, store: Store, kind: str, moment: str, count: int) -> None:
        super().__init__(store)
        self.kind, self.moment, self.left = kind, moment, count

    def _commit(self, group) -> None:
        self.left -= self.kind in {kind_of(queued.command) for queued in group}
        if self.left == 0 and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super()._commit(group)
        if self.left == 0 and self.moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def say(*words: object) -> None:
    print(*words, flush=True)


async def stream(writer: LedgerWriter, number: int, epoch: int, key_id: str, settled: list[str]) -> None:
    price = Price(1_000, 1_000)
    attribution = Attribution("acme", "inference", None, key_id, "local/tiny", "default")
    for turn in itertools.count():
        request_id = f"{number}-{turn}"
        await writer.execute(OpenHold(request_id, attribution, price, 10, 20, epoch, NOW_MS))
        await writer.execute(SettleHold(request_id, Usage(10, 0, 5), "completed", NOW_MS, "stop"))
        say("settle", request_id)
        settled.append(request_id)


async def treasury(writer: LedgerWriter, settled: list[str]) -> None:
    """Grants that last and grants that expire, the sweep, and refunds, in turn. Time goes on by a second a turn."""
    for turn in itertools.count(1):
        now_ms = NOW_MS + 1000 * turn
        for expires_at_ms in (None, now_ms + 500):
            amount = 1000 + turn

            def grant(conn, now_ms=now_ms, amount=amount, expires_at_ms=expires_at_ms):
                return operations.grant_credit(
                    conn,
                    "acme",
                    operations.NewGrant(amount, expires_at_ms=expires_at_ms),
                    by=operations.Author("test", now_ms),
                )

            say("grant", (await writer.execute(Change("grant", grant))).grant_id, amount)
        await writer.execute(ExpireGrants(now_ms + 900))
        while not settled:
            await asyncio.sleep(0)
        request_id = settled.pop()

        def refund(conn, request_id=request_id, now_ms=now_ms):
            return operations.refund_request(
                conn, request_id, REFUNDED_NANOUSD, reason="load", by=operations.Author("test", now_ms)
            )

        say("refund", (await writer.execute(Change("refund", refund))).txn, REFUNDED_NANOUSD)


async def serve(writer: LedgerWriter, epoch: int, key_id: str) -> None:
    settled: list[str] = []
    streams = (stream(writer, number, epoch, key_id, settled) for number in range(STREAMS))
    await asyncio.gather(treasury(writer, settled), *streams)


def main() -> None:
    data_dir, kind, moment, count = sys.argv[1:]
    lock = DataLock(Path(data_dir))
    lock.acquire()
    store = Store(Path(data_dir), lock)
    epoch = begin_epoch(store, NOW_MS)
    with store.immediate() as conn:
        operations.create_team(conn, "acme", "academic", by=operations.Author("test", NOW_MS))
        key = operations.create_key(conn, "acme", by=operations.Author("test", NOW_MS))
        operations.grant_credit(conn, "acme", operations.NewGrant(10**9), by=operations.Author("test", NOW_MS))
    writer = KilledWriter(store, kind, moment, int(count))
    writer.start()
    say("ready")
    asyncio.run(serve(writer, epoch, key.id))


if __name__ == "__main__":
    main()
