"""Checks of `inferd doctor`: the server, the schema, SQLite, the disk, the WAL, the clock and the master key."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from inferd.instants import format_instant
from inferd.ledger.operations.audit_log import Author, record
from inferd.ledger.storage.data_dir import RESERVE_BYTES, DataLock, free_bytes, is_nearly_full
from inferd.ledger.storage.schema import schema_version
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.wal import WriteAheadLog, has_reset_bug
from inferd.ledger.terms import expiry_clock as clock
from inferd.sealed import MASTER_KEY_NAME, master_key_fault

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check.

    Attributes:
        well: False if the operator must act.
        said: the finding, and what to do.
    """

    name: str
    well: bool
    said: str


def checks(conn: sqlite3.Connection, store: Store, now_ms: int, *, needs_server: bool = True) -> list[Check]:
    """Carry out all checks, in the order in which they are shown.

    Args:
        conn: a reading connection of `store`.
        needs_server: whether it is a fault that no server runs.
    """
    return [
        _server(store.data_dir, needs_server),
        Check("schema", True, f"version {schema_version(conn)}, the version of this inferd"),
        _sqlite(),
        _disk(store.data_dir),
        _wal(store.wal, needs_room=is_nearly_full(store.data_dir)),
        _clock(conn, now_ms),
        *_master_key(store.data_dir),
    ]


def accept_clock(conn: sqlite3.Connection, *, by: Author) -> None:
    """Trust the wall clock again on the operator's word: credit expires by it."""
    state = clock.clock_state(conn)
    clock.accept_clock(conn, by.now_ms)
    details = {"seen_before": format_instant(state.seen_ms), "paused_because": state.paused_because}
    record(conn, "clock.accept", None, details, by)


def _server(data_dir: Path, is_needed: bool) -> Check:
    lock = DataLock(data_dir)
    if lock.try_acquire():
        lock.release()
        return Check("server", not is_needed, "no server runs on this data folder: start `inferd serve`")
    return Check("server", True, f"process {lock.holder()} serves from this data folder")


def _sqlite() -> Check:
    said = f"SQLite {sqlite3.sqlite_version}"
    if has_reset_bug():
        said += (
            " has the WAL-reset bug; inferd avoids it: it checkpoints on one connection and under a lock. Other "
            "programs that write ledger.db do not: use a Python with SQLite 3.51.3, 3.50.7 or 3.44.6 for them"
        )
    return Check("sqlite", True, said)


def _disk(data_dir: Path) -> Check:
    free = free_bytes(data_dir)
    said = f"{free // _MIB:,} MiB free on the ledger's disk"
    if free < RESERVE_BYTES:
        said += f": new requests are refused until there are {RESERVE_BYTES // _MIB} MiB"
    return Check("disk", free >= RESERVE_BYTES, said)


def _wal(wal: WriteAheadLog, *, needs_room: bool) -> Check:
    said = f"{wal.size_bytes / _MIB:,.1f} MiB of write-ahead log"
    is_long = wal.is_long(needs_room=needs_room)
    if is_long:
        said += f" cannot be shortened: {wal.kept_by()}"
    return Check("log", not is_long, said)


def _master_key(data_dir: Path) -> list[Check]:
    """Return the check of the key of stored responses; none without its file."""
    if not (data_dir / MASTER_KEY_NAME).exists():
        return []
    fault = master_key_fault(data_dir)
    return [Check("key", fault is None, fault or f"{MASTER_KEY_NAME} of stored responses is private")]


def _clock(conn: sqlite3.Connection, now_ms: int) -> Check:
    state = clock.clock_state(conn)
    if state.paused_because is not None:
        return Check("clock", False, f"credit does not expire: {state.paused_because}")
    if now_ms < state.seen_ms - clock.BACKWARDS_TOLERANCE_MS:
        seen = format_instant(state.seen_ms)
        return Check("clock", False, f"it says {format_instant(now_ms)}, but a server has seen {seen}")
    return Check("clock", True, format_instant(now_ms))
