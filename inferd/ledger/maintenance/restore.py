"""`inferd restore`: go back to a backup, after saying what that loses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferd.errors import OperationError
from inferd.instants import format_instant
from inferd.ledger.maintenance.backup import checked_copy, copy, write_over
from inferd.ledger.storage.folder import FILE_NAME, create_file
from inferd.ledger.storage.lock import DataLock


@dataclass(frozen=True, slots=True)
class Loss:
    """What the ledger in use has that the backup has not.

    Attributes:
        what: in plural, `settled requests`.
        count: how many.
        nanousd: what they amount to; None where that says nothing.
    """

    what: str
    count: int
    nanousd: int | None


# what -> (table, name of a row, amount)
_THINGS = {
    "teams": ("teams", "team", None),
    "keys": ("keys", "key_id", None),
    "revocations of keys": ("keys WHERE revoked_at_ms IS NOT NULL", "key_id", None),
    "grants": ("grants", "grant_id || '/' || created_at_ms", "amount_nanousd"),
    "requests": ("usage_sums", None, "cost_nanousd"),
    "movements of money": ("transactions", "txn || '/' || checksum", None),
}


def _losses(ledger: Path, backup: Path) -> list[Loss]:
    """Compare two files of this schema, in the order in which a person would ask."""
    try:
        with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as conn:
            conn.execute("PRAGMA query_only = ON")
            conn.execute("ATTACH ? AS backup", (f"{backup.absolute().as_uri()}?mode=ro",))
            return [loss for what in _THINGS if (loss := _loss(conn, what)).count > 0]
    except sqlite3.Error as exc:
        raise OperationError(f"{ledger}: cannot be read, so what would be lost is unknown: {exc}") from exc


def _loss(conn: sqlite3.Connection, what: str) -> Loss:
    table, name, amount = _THINGS[what]
    if name is None:
        sums = "SELECT coalesce(sum(requests), 0), coalesce(sum(cost_nanousd), 0) FROM"
        count, nanousd = conn.execute(f"{sums} main.{table}").fetchone()
        kept, kept_nanousd = conn.execute(f"{sums} backup.{table}").fetchone()
        return Loss(what, max(0, count - kept), nanousd - kept_nanousd)
    total = "NULL" if amount is None else f"coalesce(sum({amount}), 0)"
    joiner = "AND" if "WHERE" in table else "WHERE"
    query = f"SELECT count(*), {total} FROM main.{table} {joiner} {name} NOT IN (SELECT {name} FROM backup.{table})"
    return Loss(what, *conn.execute(query).fetchone())


class Restore:
    """One restore that is ready: the backup was copied into the folder, brought to this schema and audited."""

    def __init__(self, ledger: Path, copied: Path) -> None:
        self._ledger = ledger
        self._copied = copied

    def losses(self) -> list[Loss]:
        """What the ledger in use has that the backup has not. Raises OperationError if it cannot be read."""
        return _losses(self._ledger, self._copied) if self._exists() else []

    def perform(self, now_ms: int) -> Path | None:
        """Keep a copy of the ledger in use, then put the backup in its place. Returns the copy, if there was one."""
        kept = self._keep(now_ms) if self._exists() else None
        create_file(self._ledger)
        write_over(self._copied, self._ledger)
        return kept

    def _exists(self) -> bool:
        return self._ledger.exists() and self._ledger.stat().st_size > 0

    def _keep(self, now_ms: int) -> Path:
        stamp = format_instant(now_ms).replace(":", "").replace(".", "")
        kept = self._ledger.with_name(f"ledger-before-restore-{stamp}.db")
        create_file(kept)
        try:
            copy(self._ledger, kept)
        except OperationError:
            # Too damaged to be read: set aside as it is, with what belongs to it.
            for end in ("", "-wal", "-shm"):
                part = self._ledger.with_name(FILE_NAME + end)
                if part.exists():
                    part.rename(kept.with_name(kept.name + end))
        return kept


@contextmanager
def prepared_restore(data_dir: Path, backup: Path, lock: DataLock) -> Iterator[Restore]:
    """A restore of `backup` into a data folder whose lock is held meanwhile.

    Raises:
        OperationError: the file is no ledger of this inferd or of an older one, or its books do not balance.
    """
    assert lock.held, "a restore needs the lock of the data folder"
    with checked_copy(backup, data_dir) as copied:
        yield Restore(data_dir / FILE_NAME, copied)
