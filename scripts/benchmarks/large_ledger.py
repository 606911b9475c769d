"""A ledger of any size, made quickly: history by SQL, teams by the operations that the product has."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from inferd.ledger import operations
from inferd.ledger.storage.store import Store

# 2026-01-01 00:00 UTC; history is spread over the year after it.
FIRST_MS = 1_767_225_600_000
YEAR_MS = 365 * 86_400_000
GRANT_NANOUSD = 10**14
CHECKSUM = "0" * 32


def fill(folder: Path, *, teams: int, usage_rows: int) -> None:
    """Teams with a key and a grant each, and `usage_rows` settled requests with their holds, transactions and entries.

    History has no checksums and the teams' balances do not know of it: it is there to be in the way, not to be audited.
    """
    store = Store(folder)
    with store.immediate() as conn:
        for number in range(teams):
            team = f"team-{number}"
            operations.create_team(conn, team, "enterprise", by=operations.Author("bench", FIRST_MS))
            operations.create_key(conn, team, by=operations.Author("bench", FIRST_MS))
            operations.grant_credit(
                conn, team, operations.NewGrant(GRANT_NANOUSD), by=operations.Author("bench", FIRST_MS)
            )
    if usage_rows:
        with closing(store.connect_writer()) as conn:
            _add_history(conn, usage_rows)


def _add_history(conn: sqlite3.Connection, usage_rows: int) -> None:
    conn.execute("PRAGMA foreign_keys = OFF")
    conn.execute("PRAGMA cache_size = -2000000")
    conn.execute("INSERT OR IGNORE INTO epochs (epoch, pid, began_at_ms) VALUES (1, 1, 0)")
    conn.execute("BEGIN IMMEDIATE")
    (first_txn,) = conn.execute("SELECT max(txn) + 1 FROM transactions").fetchone()
    conn.execute(
        f"""
        CREATE TEMP TABLE history AS
        WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {usage_rows}),
            callers AS (SELECT row_number() OVER () - 1 AS i, team, key_id FROM keys)
        SELECT n, {first_txn} + n AS txn, {FIRST_MS} + n * {YEAR_MS} / {usage_rows} AS at_ms, team, key_id,
            printf('req_%012x', {FIRST_MS} + n * {YEAR_MS} / {usage_rows}) || lower(hex(randomblob(10))) AS request_id
        FROM numbers JOIN callers ON i = n * 7919 % (SELECT count(*) FROM callers)
        """
    )
    entry = "INSERT INTO entries (txn, line, account, amount_nanousd, checksum) SELECT txn,"
    for statement in (
        "INSERT INTO transactions (txn, kind, request_id, actor, at_ms, checksum) "
        f"SELECT txn, 'settlement', request_id, 'inferd', at_ms, '{CHECKSUM}' FROM history",
        f"{entry} 1, 'team:' || team || ':credit:1', -100000, '{CHECKSUM}' FROM history",
        f"{entry} 2, 'revenue:bench/m', 100000, '{CHECKSUM}' FROM history",
    ):
        conn.execute(statement)
    for table, values in (
        ("holds", {"epoch": "1", "max_completion_tokens": "200", "amount_nanousd": "130000", "state": "'settled'"}),
        (
            "usage",
            {
                "cached_tokens": "100",
                "completion_tokens": "120",
                "compute_ms": "900",
                "cost_nanousd": "100000",
                "status": "'completed'",
                "txn": "txn",
            },
        ),
    ):
        common = {
            **{"request_id": "request_id", "team": "team", "project": "'inference'", "key_id": "key_id"},
            **{"deployment": "'bench/m'", "service_tier": "'default'", "input_picousd": "100000"},
            **{"output_picousd": "400000", "prompt_tokens": "500", "admitted_at_ms": "at_ms"},
            **{"checksum": f"'{CHECKSUM}'"},
            ("resolved_at_ms" if table == "holds" else "finished_at_ms"): "at_ms + 900",
        }
        chosen = common | values
        conn.execute(f"INSERT INTO {table} ({', '.join(chosen)}) SELECT {', '.join(chosen.values())} FROM history")
    conn.execute("COMMIT")
    conn.execute("DROP TABLE history")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
