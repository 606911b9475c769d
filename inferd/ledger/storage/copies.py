"""Copies of a ledger's file, made while it is in use.

SQLite's backup API copies from one snapshot, so writers continue and the copy has whole transactions only. A copy is
one file, without -wal and -shm files.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from inferd.errors import OperationError


def open_file(path: Path, mode: str) -> sqlite3.Connection:
    """Open a SQLite file by a URI mode: `ro`, `rw` or `rwc`."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=10.0)


def copy(source: Path, target: Path) -> None:
    """Copy a ledger, unaudited, into the empty or new file `target`, and sync it to disk.

    Raises:
        OperationError: one of the files cannot be read or written.
    """
    try:
        with closing(open_file(source, "rw")) as conn, closing(open_file(target, "rwc")) as made:
            conn.backup(made)
            # Without it the copy needs -wal and -shm files beside it.
            made.execute("PRAGMA journal_mode = DELETE")
        with target.open("rb") as file:
            os.fsync(file.fileno())
    except sqlite3.Error as error:
        raise OperationError(f"{source}: cannot be copied to {target}: {error}") from error
    except OSError as error:
        raise OperationError(f"{target}: cannot be written: {error.strerror}") from error


@contextmanager
def opened_copy(ledger: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection to a temporary copy of a ledger, made beside it.

    Raises:
        OperationError: the copy cannot be made.
    """
    with temporary_file(ledger.with_name("copy")) as path:
        copy(ledger, path)
        with closing(open_file(path, "ro")) as conn:
            yield conn


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield a new private file beside `target`; it is removed at the end unless it was renamed.

    Raises:
        OperationError: the folder cannot be written.
    """
    try:
        # Temporary files are made with mode 600.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.absolute().parent)
    except OSError as error:
        raise OperationError(f"{target}: cannot be written: {error.strerror}") from error
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        for end in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + end).unlink(missing_ok=True)
