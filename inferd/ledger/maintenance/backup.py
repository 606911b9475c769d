"""Copies of the ledger, made while it is in use, and the way back from one.

A copy is made by SQLite's backup API from one snapshot, so writers go on and nothing half-done is in it. It is one
file, without companions, and is there under its name only once it is complete, synced and audited.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferd.errors import OperationError
from inferd.ledger.audit.audit import AuditReport, audit
from inferd.ledger.storage.schema import SCHEMA_VERSION, migrate, schema_version


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was made, and what the audit of it read."""

    path: Path
    size_bytes: int
    report: AuditReport


def back_up(ledger: Path, target: Path) -> Backup:
    """Copy the ledger's file to `target`, which must not exist, readable by its owner alone.

    Raises:
        OperationError: it exists, cannot be written, or the copy's books do not balance; then nothing is left there.
    """
    if target.exists():
        raise OperationError(f"{target}: exists already; a backup never replaces a file")
    with _partial(target) as partial:
        copy(ledger, partial)
        report = audit_file(partial)
        if not report.clean:
            raise OperationError(
                f"the books do not balance, so no backup was made: {report.findings[0]}; `inferd audit` shows it all"
            )
        partial.rename(target)
        _sync_folder(target.parent)
    return Backup(target, target.stat().st_size, report)


def copy(source: Path, target: Path) -> None:
    """Copy a ledger as it is, unaudited, into the empty or new file `target`, and sync it."""
    try:
        with closing(_open(source, "mode=rw")) as conn, closing(_open(target, "mode=rwc")) as made:
            conn.backup(made)
            # Else the copy would want its -wal and -shm beside it.
            made.execute("PRAGMA journal_mode = DELETE")
        with target.open("rb") as file:
            os.fsync(file.fileno())
    except sqlite3.Error as exc:
        raise OperationError(f"{source}: cannot be copied to {target}: {exc}") from exc
    except OSError as exc:
        raise OperationError(f"{target}: cannot be written: {exc.strerror}") from exc


def audit_file(path: Path) -> AuditReport:
    """Audit a file that nobody uses, at the schema of this code."""
    with closing(_open(path, "mode=ro")) as conn:
        return audit(conn)


@contextmanager
def opened_copy(ledger: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of a ledger beside it, as of this moment; both are gone at the end. Raises
    OperationError."""
    with _partial(ledger.with_name("copy")) as partial:
        copy(ledger, partial)
        with closing(_open(partial, "mode=ro")) as conn:
            yield conn


@contextmanager
def checked_copy(backup: Path, folder: Path) -> Iterator[Path]:
    """A copy of a backup in `folder`, brought to this schema and audited; gone at the end.

    Raises:
        OperationError: it is no ledger, one of a newer inferd, or its books do not balance.
    """
    if not backup.is_file():
        raise OperationError(f"{backup}: there is no such file")
    with _partial(folder / "restore") as partial:
        try:
            copy(backup, partial)
            with closing(_open(partial, "mode=rw")) as conn:
                version = schema_version(conn)
                if not 0 < version <= SCHEMA_VERSION:
                    known = f"this inferd knows schemas 1 to {SCHEMA_VERSION}"
                    raise OperationError(f"{backup}: is no ledger that can be restored: schema {version}, {known}")
                conn.execute("PRAGMA foreign_keys = ON")
                migrate(conn)
        except sqlite3.Error as exc:
            raise OperationError(f"{backup}: is no ledger that can be restored: {exc}") from exc
        report = audit_file(partial)
        if not report.clean:
            raise OperationError(f"{backup}: its books do not balance, so it is not restored: {report.findings[0]}")
        yield partial


def write_over(source: Path, ledger: Path) -> None:
    """Put a checked copy in the place of the ledger's content, in one transaction of the ledger's own file.

    So a crash leaves the old books or the new ones, and whoever has the file open sees one or the other.
    """
    try:
        with closing(_open(source, "mode=rw")) as conn, closing(_open(ledger, "mode=rwc")) as live:
            live.execute("PRAGMA synchronous = FULL")
            conn.backup(live)
            live.execute("PRAGMA journal_mode = WAL")
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as exc:
        raise OperationError(f"{ledger}: cannot be written, nothing was restored: {exc}") from exc


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=10.0)


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A new private file beside `target`, removed at the end if it is still there under its own name."""
    try:
        # Temporary files are made with mode 600.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.absolute().parent)
    except OSError as exc:
        raise OperationError(f"{target}: cannot be written: {exc.strerror}") from exc
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
    finally:
        for path in (partial, *(partial.with_name(partial.name + end) for end in ("-wal", "-shm", "-journal"))):
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder.absolute(), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
