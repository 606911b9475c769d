"""Audit of settings: terms, concurrency and revocations are compared with the audit log."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.storage.rows import checksum
from inferd.ledger.storage.schema import migrate
from tests.ledger.audit.test_run import forge, found, tamper
from tests.ledger.books import NOW_MS

TERMS = [
    ("teams", "acme", "plan = 'enterprise'"),
    ("teams", "acme", "tier_override = 5"),
    ("teams", "acme", "tier_override = NULL"),
    ("teams", "acme", "tier_override_until_ms = NULL"),
    ("teams", "idle", "plan = 'pro'"),
    ("teams", "idle", "tier_override = 1"),
]


@pytest.mark.parametrize(("table", "team", "change"), TERMS)
def test_changed_terms_are_found(set_ledger, table, team, change):
    tamper(set_ledger, f"UPDATE {table} SET {change} WHERE team = '{team}'")
    assert found(set_ledger) == {(table, team)}


def test_default_team_has_the_tier_of_the_audit_log():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        migrate(conn)
        operations.ensure_default_team(conn, by=operations.Author("test", NOW_MS))
        assert audit(conn).clean
        conn.execute("UPDATE teams SET tier_override = 4")
        assert [(each.table, each.row) for each in audit(conn).findings] == [("teams", "default")]


@pytest.mark.parametrize(
    ("table", "where", "row", "change"),
    [
        ("billing", "team = 'acme'", "acme", "overage = 'block'"),
        ("billing", "team = 'acme'", "acme", "overage = NULL"),
        ("billing", "team = 'acme'", "acme", "payment_method = 0"),
        ("concurrency", "team = 'acme'", "project:acme/inference", "max_requests = 1000"),
    ],
)
def test_changed_terms_with_a_forged_checksum_are_found(set_ledger, table, where, row, change):
    forge(set_ledger, table, change, where)
    assert found(set_ledger) == {(table, row)}


@pytest.mark.parametrize(
    ("sql", "table", "row"),
    [
        ("DELETE FROM billing", "billing", "acme"),
        ("DELETE FROM concurrency", "concurrency", "project:acme/inference"),
        ("DELETE FROM teams WHERE team = 'idle'", "teams", "idle"),
    ],
)
def test_missing_terms_are_found(set_ledger, sql, table, row):
    tamper(set_ledger, sql)
    assert (table, row) in found(set_ledger)


def test_concurrency_that_was_not_set_is_found(set_ledger):
    values = ("user:acme/ada", "acme", 9, set_ledger.now_ms, "test")
    marks = (*values, checksum("concurrency", values))
    set_ledger.conn.execute("INSERT INTO concurrency VALUES (?, ?, ?, ?, ?, ?)", marks)
    assert found(set_ledger) == {("concurrency", "user:acme/ada")}


@pytest.mark.parametrize(
    "change", ["revoked_at_ms = NULL, revoked_by = NULL", "revoked_at_ms = revoked_at_ms + 1", "revoked_by = 'me'"]
)
def test_changed_revocation_is_found(set_ledger, change):
    """R21"""
    key_id = set_ledger.one("SELECT key_id FROM keys WHERE revoked_at_ms IS NOT NULL")
    tamper(set_ledger, f"UPDATE keys SET {change} WHERE key_id = '{key_id}'")
    assert found(set_ledger) == {("keys", key_id)}


def test_revocation_not_in_the_audit_log_is_found(set_ledger):
    tamper(set_ledger, f"UPDATE keys SET revoked_at_ms = 1, revoked_by = 'me' WHERE key_id = '{set_ledger.key.id}'")
    assert found(set_ledger) == {("keys", set_ledger.key.id)}


@pytest.mark.parametrize(("table", "column"), [("log", "details"), ("catalogs", "catalog")])
def test_unreadable_text_is_a_finding(set_ledger, table, column):
    tamper(set_ledger, f"UPDATE {table} SET {column} = 'changed' WHERE seq = 1")
    assert found(set_ledger) == {(table, "1")}
