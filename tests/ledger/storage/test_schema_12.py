"""Rows of schema 12 get their authority and their checksums; a changed row stays one that the audit names."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing

import pytest

from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.storage.rows import checksum
from inferd.ledger.storage.schema import migrate
from tests.ledger.storage.test_migrations import FIXTURES, contents

OPERATOR = {"by": operations.Author("cli:test", 7)}


@pytest.fixture
def ledger():
    """A ledger of schema 12, and the actor of a manager's key of its team shop, of which nothing was set yet."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        conn.executescript(FIXTURES[12].read_text(encoding="utf-8"))
        operations.create_team(conn, "shop", "academic", **OPERATOR)
        columns = (
            "key_id team project user label secret_sha256 last4 expires_at_ms created_at_ms created_by scopes models"
        )
        values = ["managers-key", "shop", None, None, None, "", "last", None, 7, "cli:test", "manage", None]
        conn.execute(
            f"INSERT INTO keys ({columns.replace(' ', ', ')}, checksum) VALUES ({', '.join('?' * 13)})",
            (*values, checksum_of_schema_12("keys", values)),
        )
        yield conn, "key:managers-key"


def log(conn, action, actor, **details):
    """As schema 12 wrote it, without an authority."""
    seq = conn.execute("SELECT max(seq) + 1 FROM log").fetchone()[0]
    values = [seq, 7, actor, action, "shop", json.dumps(details, sort_keys=True)]
    conn.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, checksum("log", values)))


def set_by_both(conn, actor):
    """A suspension, a budget and an overage, each set by the actor after the operator had."""
    for by in ("cli:test", actor):
        log(conn, "budgets.set", by, amount_nanousd=5, period="month")
        log(conn, "teams.set", by, earn_tier=False, overage="block")
    log(conn, "keys.suspend", actor, key_id="x")
    conn.execute("INSERT INTO suspensions VALUES ('key:x', 'shop', NULL, 7, ?)", (actor,))
    for table, values in (
        ("budgets", ["team:shop", "month", "shop", 5, 7, actor]),
        ("billing", ["shop", "block", 0, 0, 7, actor]),
    ):
        places = ", ".join("?" * (len(values) + 1))
        conn.execute(f"INSERT INTO {table} VALUES ({places})", (*values, checksum_of_schema_12(table, values)))


def checksum_of_schema_12(table, values):
    text = json.dumps([table, *values], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize("by", ["team", "operator", "unknown"])
def test_authority_of_older_rows_is_that_of_their_author(ledger, by):
    """R21: an unknown author is the operator."""
    conn, manager = ledger
    set_by_both(conn, {"team": manager, "operator": "cli:test", "unknown": "key:gone"}[by])
    before = contents(conn)
    migrate(conn)
    assert [str(finding) for finding in audit(conn).findings] == []
    assert contents(conn) == before
    authority = "team" if by == "team" else "operator"
    assert conn.execute("SELECT authority FROM suspensions WHERE team = 'shop'").fetchall() == [(authority,)]
    budgets = conn.execute("SELECT authority, amount FROM budgets WHERE team = 'shop'").fetchall()
    assert budgets == [(authority, 5)]
    overage = conn.execute("SELECT overage, team_overage FROM billing WHERE team = 'shop'").fetchone()
    assert overage == ((None, "block") if by == "team" else ("block", None))


def test_row_changed_before_the_migration_is_found_after_it(ledger):
    conn, manager = ledger
    set_by_both(conn, manager)
    conn.execute("UPDATE budgets SET amount_nanousd = 6 WHERE team = 'shop'")
    conn.execute("UPDATE billing SET payment_method = 1 WHERE team = 'shop'")
    migrate(conn)
    assert {finding.table for finding in audit(conn).findings} == {"budgets", "billing"}


@pytest.mark.parametrize("table", ["files", "batches"])
def test_files_and_batches_get_the_checksum_of_their_columns(ledger, table):
    """R23"""
    conn, _ = ledger
    rows = conn.execute(f"SELECT * FROM {table}").fetchall()
    migrate(conn)
    assert [row[:-1] for row in conn.execute(f"SELECT * FROM {table}")] == rows
    assert len(rows) >= 2
    assert {len(row[-1]) for row in conn.execute(f"SELECT * FROM {table}")} == {32}
    assert audit(conn).clean
