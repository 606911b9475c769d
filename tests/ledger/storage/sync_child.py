"""Run by test_syncs.py under the preload shim: prints how many syncs each part of its work took, as JSON.

Arguments: data folder, the shim's log (one byte a sync).
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import closing
from pathlib import Path

from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter
from tests.ledger.books import Books

TIMES = 10


class GatedWriter(LedgerWriter):
    """Takes nothing while `gate` is closed, so that all that is submitted meanwhile becomes one group."""

    gate = threading.Event()

    def _process(self, conn, group) -> None:
        self.gate.wait()
        super()._process(conn, group)


def main() -> None:
    data_dir, log = map(Path, sys.argv[1:])
    found: dict[str, int] = {}

    def count(what: str, work) -> None:
        before = log.stat().st_size
        work()
        found[what] = log.stat().st_size - before

    with DataLock(data_dir) as lock:
        store = Store(data_dir, lock)
        with closing(store.connect_writer()) as conn:
            books = Books(conn)
            count("grants", lambda: [books.grant(10_000) for _ in range(TIMES)])
            writer = GatedWriter(store)
            writer.gate.set()
            writer.start()
            held: list[str] = []

            def hold() -> None:
                held.append(writer.submit(books.open_hold(5)).result(10).request_id)

            def settle() -> None:
                writer.submit(books.settlement(held.pop(), 5)).result(10)

            count("first hold", hold)
            count("holds", lambda: [hold() for _ in range(2 * TIMES)])
            # It may also sync the header of a log that began anew.
            count("first settlement", settle)
            count("settlements", lambda: [settle() for _ in range(TIMES)])
            count("voids", lambda: [writer.submit(books.void(held.pop())).result(10) for _ in range(2)])
            writer.gate.clear()
            first = writer.submit(books.open_hold(1))
            futures = [writer.submit(books.settlement(held.pop(), 5)) for _ in range(5)]
            count("a group of settlements", lambda: (writer.gate.set(), [f.result(10) for f in (first, *futures)]))
            writer.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
