"""A server's ledger under load in a process that is killed: run by test_crash.py.

Arguments: data folder, kind of commit ("hold" or "settle"), "before" or "after", which one of that kind kills.
Prints `ready`, then the id of each request whose settlement was answered.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from inferd.ledger import operations
from inferd.ledger.holds import OpenHold, SettleHold
from inferd.ledger.lock import DataLock
from inferd.ledger.store import Store
from inferd.ledger.writer import LedgerWriter
from inferd.price import Price
from inferd.usage import Usage

NOW_MS = 1_795_176_000_000
STREAMS = 8


class KilledWriter(LedgerWriter):
    """Ends the process at the chosen commit, as a power switch would."""

    def __init__(self, store: Store, kind: str, moment: str, count: int) -> None:
        super().__init__(store)
        self.kind, self.moment, self.left = kind, moment, count

    def _commit(self, group) -> None:
        kinds = {"settle" if queued.command.durable else "hold" for queued in group}
        self.left -= self.kind in kinds
        if self.left == 0 and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super()._commit(group)
        if self.left == 0 and self.moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)


async def stream(writer: LedgerWriter, number: int, epoch: int, key_id: str) -> None:
    price = Price(1_000, 1_000)
    for turn in range(10_000):
        request_id = f"{number}-{turn}"
        await writer.execute(
            OpenHold(
                request_id, "acme", "inference", None, key_id, "local/tiny", "default", price, 10, 20, epoch, NOW_MS
            )
        )
        await writer.execute(SettleHold(request_id, Usage(10, 0, 5), "completed", NOW_MS, "stop"))
        print(request_id, flush=True)


async def serve(writer: LedgerWriter, epoch: int, key_id: str) -> None:
    await asyncio.gather(*(stream(writer, number, epoch, key_id) for number in range(STREAMS)))


def main() -> None:
    data_dir, kind, moment, count = sys.argv[1:]
    lock = DataLock(Path(data_dir))
    lock.acquire()
    store = Store(Path(data_dir), lock)
    epoch = store.begin_epoch(NOW_MS)
    with store.immediate() as conn:
        operations.create_team(conn, "acme", "academic", actor="test", now_ms=NOW_MS)
        key = operations.create_key(conn, "acme", actor="test", now_ms=NOW_MS)
        operations.grant_credit(conn, "acme", 10**9, actor="test", now_ms=NOW_MS)
    writer = KilledWriter(store, kind, moment, int(count))
    writer.start()
    print("ready", flush=True)
    asyncio.run(serve(writer, epoch, key.id))


if __name__ == "__main__":
    main()
