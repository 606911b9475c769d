"""`inferd audit`: refold the whole ledger and compare it with everything that is stored.

Nothing here trusts a stored sum. Each check is a generator of findings that name table and row; they read within one
snapshot (`Store.reading`), beside a running server.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from inferd.ledger.audit import access as audit_access
from inferd.ledger.audit import billing as audit_billing
from inferd.ledger.audit import counters as audit_counters
from inferd.ledger.audit import files as audit_files
from inferd.ledger.audit import idempotency as audit_idempotency
from inferd.ledger.audit import limits as audit_limits
from inferd.ledger.audit import money as audit_money
from inferd.ledger.audit import numbers as audit_numbers
from inferd.ledger.audit import requests as audit_requests
from inferd.ledger.audit import rollups as audit_rollups
from inferd.ledger.audit import terms as audit_terms
from inferd.ledger.audit.finding import Finding
from inferd.ledger.storage.rows import FORMATS, checksum
from inferd.ledger.storage.schema import expected_objects, objects


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit looked at, and what it found.

    Attributes:
        rows: how many rows of each table were read.
        findings: empty if the books are right.
    """

    rows: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        return not self.findings


_CHECKS = (
    *(audit_money.unbalanced_transactions, audit_money.loose_entries, audit_money.wrong_balances),
    *(audit_money.wrong_grants, audit_money.overdrawn_teams, audit_counters.wrong_counters),
    *(audit_billing.wrong_refunds, audit_billing.wrong_takings, audit_billing.wrong_statements),
    *(audit_billing.wrong_charges, audit_billing.wrong_payments),
    *(audit_requests.wrong_holds, audit_requests.wrong_usage, audit_requests.wrong_states),
    *(audit_requests.wrong_settlements, audit_numbers.missing_rows, audit_limits.wrong_alerts),
    *(audit_rollups.wrong_rollups, audit_rollups.wrong_daily_costs),
)
# They read the texts of `log` and `catalogs`, which must be what was written.
_CHECKS_OF_TEXTS = (
    *(audit_access.wrong_suspensions, audit_access.wrong_revocations, audit_billing.wrong_tiers),
    *(audit_terms.wrong_terms, audit_terms.wrong_concurrency),
    *(audit_limits.wrong_budgets, audit_limits.wrong_raises, audit_idempotency.lost_answers),
    *(audit_files.wrong_files, audit_files.wrong_batches),
)


def audit(conn: sqlite3.Connection) -> AuditReport:
    """Check everything. A file too damaged to be read is itself a finding."""
    findings: list[Finding] = []
    rows: dict[str, int] = {}
    try:
        findings += _damage(conn)
        findings += _changed_schema(conn)
        findings += _changed_rows(conn)
        readable = not any(finding.table in ("log", "catalogs") for finding in findings)
        for check in (*_CHECKS, *(_CHECKS_OF_TEXTS if readable else ())):
            findings += check(conn)
        for table in (*FORMATS, "accounts", "counters", "statements"):
            rows[table] = conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    except sqlite3.DatabaseError as exc:
        findings.append(Finding("(file)", "", f"cannot be read: {exc}"))
    return AuditReport(rows, tuple(findings))


def _damage(conn: sqlite3.Connection) -> Iterator[Finding]:
    """What SQLite itself finds wrong: pages, indexes, constraints, references."""
    for (message,) in conn.execute("PRAGMA integrity_check"):
        if message != "ok":
            yield Finding("(file)", "", message)
    for table, rowid, parent, _ in conn.execute("PRAGMA foreign_key_check"):
        yield Finding(table, f"rowid {rowid}", f"refers to a row of {parent} that does not exist")


def _changed_schema(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Tables, indexes and triggers that are not as this version made them."""
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
    """Rows whose checksum does not fit their columns."""
    for table, row_format in FORMATS.items():
        for *covered, stored in conn.execute(f"SELECT {', '.join(row_format.covered)}, checksum FROM {table}"):
            if checksum(table, covered) != stored:
                row = "/".join(str(value) for value in covered[: row_format.key])
                yield Finding(table, row, "its checksum does not fit its columns: it was changed")
