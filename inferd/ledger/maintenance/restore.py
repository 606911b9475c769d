"""`inferd restore`: put a backup in the place of the ledger, after saying what that loses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferd.errors import OperationError
from inferd.instants import format_instant
from inferd.ledger.maintenance.backup import audit_file
from inferd.ledger.storage.copies import copy, open_file, temporary_file
from inferd.ledger.storage.data_dir import FILE_NAME, DataLock, create_file
from inferd.ledger.storage.schema import migrate, schema_version, version_fault


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that the ledger has and the backup has not.

    Attributes:
        what: plural noun, such as `grants`.
        count: number of rows.
        nanousd: the sum of their amounts; None for rows without an amount.
    """

    what: str
    count: int
    nanousd: int | None


# what -> (table, name of a row, amount)
_ROWS = {
    "teams": ("teams", "team", None),
    "keys": ("keys", "key_id", None),
    "revocations of keys": ("keys WHERE revoked_at_ms IS NOT NULL", "key_id", None),
    "grants": ("grants", "grant_id || '/' || created_at_ms", "amount_nanousd"),
    "requests": ("usage_sums", None, "cost_nanousd"),
    "movements of money": ("transactions", "txn || '/' || checksum", None),
}


class Restore:
    """A prepared restore: the backup was copied into the data folder, migrated and audited."""

    def __init__(self, ledger: Path, copied: Path) -> None:
        self._ledger = ledger
        self._copied = copied

    def losses(self) -> list[Loss]:
        """Return the rows that would be lost, in the order of `_ROWS`.

        Raises:
            OperationError: the ledger cannot be read.
        """
        if not self._exists():
            return []
        try:
            with closing(open_file(self._ledger, "rw")) as conn:
                conn.execute("PRAGMA query_only = ON")
                conn.execute("ATTACH ? AS backup", (f"{self._copied.absolute().as_uri()}?mode=ro",))
                return [loss for what in _ROWS if (loss := _loss(conn, what)).count > 0]
        except sqlite3.Error as error:
            raise OperationError(f"{self._ledger}: cannot be read, so the loss is unknown: {error}") from error

    def perform(self, now_ms: int) -> Path | None:
        """Copy the ledger, then put the backup in its place. Returns the copy; None if there was no ledger.

        The backup is written in one transaction of the ledger's own file: after a crash the file has the old content or
        the new one, and so does every process that has it open.

        Raises:
            OperationError: the ledger cannot be written; nothing was restored.
        """
        kept = self._keep_copy(now_ms) if self._exists() else None
        create_file(self._ledger)
        try:
            with closing(open_file(self._copied, "rw")) as conn, closing(open_file(self._ledger, "rwc")) as live:
                live.execute("PRAGMA synchronous = FULL")
                conn.backup(live)
                live.execute("PRAGMA journal_mode = WAL")
                live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise OperationError(f"{self._ledger}: cannot be written, nothing was restored: {error}") from error
        return kept

    def _exists(self) -> bool:
        return self._ledger.exists() and self._ledger.stat().st_size > 0

    def _keep_copy(self, now_ms: int) -> Path:
        stamp = format_instant(now_ms).replace(":", "").replace(".", "")
        kept = self._ledger.with_name(f"ledger-before-restore-{stamp}.db")
        create_file(kept)
        try:
            copy(self._ledger, kept)
        except OperationError:
            # Too damaged to be copied: set the file aside as it is, with its companions.
            for end in ("", "-wal", "-shm"):
                part = self._ledger.with_name(FILE_NAME + end)
                if part.exists():
                    part.rename(kept.with_name(kept.name + end))
        return kept


@contextmanager
def prepared_restore(data_dir: Path, backup: Path, lock: DataLock) -> Iterator[Restore]:
    """Prepare a restore of `backup` into a data folder whose lock is held meanwhile.

    Raises:
        OperationError: the file is no ledger that this inferd opens, or its audit has findings.
    """
    assert lock.held, "a restore needs the lock of the data folder"
    if not backup.is_file():
        raise OperationError(f"{backup}: there is no such file")
    with temporary_file(data_dir / "restore") as path:
        _copy_and_migrate(backup, path)
        report = audit_file(path)
        if not report.clean:
            raise OperationError(f"{backup}: it does not balance, so it is not restored: {report.findings[0]}")
        yield Restore(data_dir / FILE_NAME, path)


def _copy_and_migrate(backup: Path, path: Path) -> None:
    try:
        copy(backup, path)
        with closing(open_file(path, "rw")) as conn:
            version = schema_version(conn)
            fault = version_fault(version) if version else "an empty database"
            if fault:
                raise OperationError(f"{backup}: is no ledger that can be restored: {fault}")
            conn.execute("PRAGMA foreign_keys = ON")
            migrate(conn)
    except sqlite3.Error as error:
        raise OperationError(f"{backup}: is no ledger that can be restored: {error}") from error


def _loss(conn: sqlite3.Connection, what: str) -> Loss:
    table, name, amount = _ROWS[what]
    if name is None:
        sums = "SELECT coalesce(sum(requests), 0), coalesce(sum(cost_nanousd), 0) FROM"
        count, nanousd = conn.execute(f"{sums} main.{table}").fetchone()
        kept, kept_nanousd = conn.execute(f"{sums} backup.{table}").fetchone()
        return Loss(what, max(0, count - kept), nanousd - kept_nanousd)
    total = "NULL" if amount is None else f"coalesce(sum({amount}), 0)"
    joiner = "AND" if "WHERE" in table else "WHERE"
    query = f"SELECT count(*), {total} FROM main.{table} {joiner} {name} NOT IN (SELECT {name} FROM backup.{table})"
    return Loss(what, *conn.execute(query).fetchone())
