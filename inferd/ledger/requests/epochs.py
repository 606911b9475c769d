"""Epochs: each start of a server begins one, and holds carry it (BILLING R20)."""

from __future__ import annotations

import os
import sqlite3

from inferd.ledger.requests.holds import VoidHold
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.expiry_clock import ObserveClock


def begin_epoch(store: Store, now_ms: int) -> int:
    """Begin this server's epoch and void the holds of dead servers, in one transaction (BILLING R16, R20).

    The store's owner holds the data folder's lock. Returns the epoch that this server's holds carry.
    """
    with store.exclusive() as conn:
        return begin(conn, os.getpid(), now_ms)


def begin(conn: sqlite3.Connection, pid: int, now_ms: int) -> int:
    """Begin the next epoch and void every hold there is, for the servers that opened them are dead.

    A clock that went back since the last server pauses expiry first.
    The caller holds the data folder's lock. Returns the new epoch.
    """
    ObserveClock(now_ms).apply(conn)
    epoch: int = conn.execute("SELECT coalesce(max(epoch), 0) + 1 FROM epochs").fetchone()[0]
    conn.execute("INSERT INTO epochs (epoch, pid, began_at_ms) VALUES (?, ?, ?)", (epoch, pid, now_ms))
    orphans = conn.execute(
        "SELECT request_id FROM holds INDEXED BY holds_open WHERE state = 'held' AND epoch < ?", (epoch,)
    ).fetchall()
    for (request_id,) in orphans:
        VoidHold(request_id, "failed", now_ms).apply(conn)
    return epoch
