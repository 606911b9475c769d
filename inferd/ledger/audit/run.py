"""`inferd audit`: recompute the whole ledger and compare it with everything that is stored.

Each check is a generator of findings that name table and row. All read within one snapshot (`Store.reading`), beside a
running server.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from inferd.ledger.audit import Finding, billing, completeness, counters, files, limits, money, requests, settings
from inferd.ledger.storage.rows import FORMATS, checksum
from inferd.ledger.storage.schema import expected_objects, objects


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Result of an audit.

    Attributes:
        rows: table -> number of its rows.
        findings: empty if the ledger balances.
    """

    rows: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        return not self.findings


_CHECKS = (
    money.unbalanced_transactions,
    money.loose_entries,
    money.wrong_balances,
    money.wrong_grants,
    money.overdrawn_teams,
    counters.wrong_counters,
    counters.wrong_day_counting,
    billing.wrong_refunds,
    billing.wrong_takings,
    billing.wrong_statements,
    billing.wrong_charges,
    billing.wrong_payments,
    requests.wrong_holds,
    requests.wrong_usage,
    requests.wrong_states,
    requests.wrong_settlements,
    requests.wrong_rollups,
    requests.wrong_daily_costs,
    completeness.missing_rows,
    limits.wrong_alerts,
)
_CHECKS_OF_TEXTS = (
    settings.wrong_suspensions,
    settings.wrong_revocations,
    settings.wrong_terms,
    settings.wrong_concurrency,
    billing.wrong_tiers,
    limits.wrong_budgets,
    limits.wrong_raises,
    completeness.lost_answers,
    files.wrong_files,
    files.wrong_batches,
)
"""Checks that parse the texts of `log` and `catalogs`, so they need rows that fit their checksums."""


def audit(conn: sqlite3.Connection) -> AuditReport:
    """Check everything. A file too damaged to be read is itself a finding."""
    findings: list[Finding] = []
    rows: dict[str, int] = {}
    try:
        findings += _damage(conn)
        findings += _changed_schema(conn)
        findings += _changed_rows(conn)
        has_texts = not any(finding.table in ("log", "catalogs") for finding in findings)
        for check in (*_CHECKS, *(_CHECKS_OF_TEXTS if has_texts else ())):
            findings += check(conn)
        for table in (*FORMATS, "accounts", "counters", "day_counters", "statements"):
            rows[table] = conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    except sqlite3.DatabaseError as error:
        findings.append(Finding("(file)", "", f"cannot be read: {error}"))
    return AuditReport(rows, tuple(findings))


def _damage(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield what SQLite itself finds wrong: pages, indexes, constraints, references."""
    for (message,) in conn.execute("PRAGMA integrity_check"):
        if message != "ok":
            yield Finding("(file)", "", message)
    for table, rowid, parent, _ in conn.execute("PRAGMA foreign_key_check"):
        yield Finding(table, f"rowid {rowid}", f"refers to a row of {parent} that does not exist")


def _changed_schema(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield tables, indexes, views and triggers that differ from schema.sql."""
    actual = objects(conn)
    expected = expected_objects()
    for kind, name in sorted(actual.keys() | expected.keys()):
        if (kind, name) not in actual:
            yield Finding("sqlite_master", name, f"this {kind} is missing")
        elif (kind, name) not in expected:
            yield Finding("sqlite_master", name, f"this {kind} does not belong here")
        elif actual[kind, name] != expected[kind, name]:
            yield Finding("sqlite_master", name, f"this {kind} was changed")


def _changed_rows(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield rows that do not fit their checksum."""
    for table, row_format in FORMATS.items():
        for *covered, stored in conn.execute(f"SELECT {', '.join(row_format.covered)}, checksum FROM {table}"):
            if checksum(table, covered) != stored:
                row = "/".join(str(value) for value in covered[: row_format.key])
                yield Finding(table, row, "its checksum does not fit its columns: it was changed")
