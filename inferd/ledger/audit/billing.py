"""Audit of money that is returned or owed: refunds, withdrawals, voids, payments, statements, earned tiers."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator

from inferd.ledger.audit import Finding
from inferd.ledger.credit.accounts import PAYMENTS, REFUNDS, funding_account, receivable_account
from inferd.ledger.terms.catalog import catalog_in_force
from inferd.ledger.terms.periods import periods_of
from inferd.ledger.terms.terms import qualifying_nanousd, read_billing

Entries = list[tuple[str, int]]


def wrong_refunds(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield refunds that exceed their request's settlement, or differ from their request or transaction."""
    rows = conn.execute(
        "SELECT refunds.txn, refunds.request_id, refunds.amount_nanousd, refunds.admitted_at_ms, transactions.kind, "
        "transactions.request_id, transactions.period, usage.request_id IS NULL OR (usage.team = refunds.team "
        "AND usage.project = refunds.project AND usage.user IS refunds.user AND usage.key_id = refunds.key_id "
        "AND usage.deployment = refunds.deployment AND usage.service_tier = refunds.service_tier "
        "AND usage.admitted_at_ms = refunds.admitted_at_ms) "
        "FROM refunds LEFT JOIN transactions USING (txn) LEFT JOIN usage ON usage.request_id = refunds.request_id"
    ).fetchall()
    returned: Counter[tuple[str, str]] = Counter()
    for txn, request_id, amount, admitted_at_ms, kind, posted_for, period, fits in rows:
        problems = []
        if (kind, posted_for, period) != ("refund", request_id, periods_of(admitted_at_ms)[0]):
            problems.append("its transaction is of another kind, request or month")
        if not fits:
            problems.append("its columns are not those of its request")
        entries = _entries(conn, txn)
        if dict(entries).get(REFUNDS) != -amount:
            problems.append(f"its transaction does not refund {amount}")
        for account, part in entries:
            if account != REFUNDS:
                returned[request_id, account] += part
        for problem in problems:
            yield Finding("refunds", str(txn), problem)
    yield from _too_much(conn, returned)
    for (txn,) in conn.execute(
        "SELECT txn FROM transactions WHERE kind = 'refund' AND txn NOT IN (SELECT txn FROM refunds)"
    ):
        yield Finding("transactions", str(txn), "it is a refund without a row of refunds")


def _too_much(conn: sqlite3.Connection, returned: Counter[tuple[str, str]]) -> Iterator[Finding]:
    drawn: Counter[tuple[str, str]] = Counter()
    rows = conn.execute(
        "SELECT request_id, account, -amount_nanousd FROM transactions JOIN entries USING (txn) "
        "WHERE kind = 'settlement' AND amount_nanousd < 0 AND request_id IN (SELECT request_id FROM refunds)"
    )
    for request_id, account, part in rows:
        drawn[request_id, account] += part
    for (request_id, account), part in returned.items():
        if not 0 < part <= drawn[request_id, account]:
            txn = conn.execute("SELECT max(txn) FROM refunds WHERE request_id = ?", (request_id,)).fetchone()[0]
            taken = drawn[request_id, account]
            yield Finding("refunds", str(txn), f"{account} got back {part} of the {taken} that {request_id} took")


def wrong_takings(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield withdrawals not from paid grants, voids not from voided ones, and those that credit another account."""
    rows = conn.execute("SELECT txn, kind FROM transactions WHERE kind IN ('withdrawal', 'void')").fetchall()
    kinds = {
        f"team:{team}:credit:{grant_id}": (kind, bool(voided))
        for grant_id, team, kind, voided in conn.execute(
            "SELECT grants.grant_id, team, kind, voids.grant_id IS NOT NULL "
            "FROM grants LEFT JOIN voids USING (grant_id)"
        )
    }
    for txn, what in rows:
        expected: Counter[str] = Counter()
        allowed = True
        entries = _entries(conn, txn)
        for account, part in entries:
            if account.startswith("team:"):
                kind, voided = kinds.get(account, ("", False))
                allowed &= part < 0 and (voided if what == "void" else kind == "paid")
                expected[funding_account(kind)] -= part
        given = {account: part for account, part in entries if not account.startswith("team:")}
        if not allowed or given != dict(expected):
            yield Finding("transactions", str(txn), f"this {what} debits grants that it may not, or credits elsewhere")


def wrong_statements(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield statements that are not the sums of the receivable's entries of their month."""
    folded: dict[tuple[str, str], Counter[str]] = {}
    rows = conn.execute(
        "SELECT txn, kind, period, account, amount_nanousd FROM transactions JOIN entries USING (txn) "
        "WHERE account LIKE 'team:%:receivable'"
    )
    for txn, kind, period, account, amount in rows:
        column = {"settlement": "charged", "refund": "refunded", "payment": "paid"}.get(kind)
        amount = -amount if kind == "settlement" else amount
        if column is None or period is None or amount <= 0:
            yield Finding("transactions", str(txn), "it changes a receivable, but belongs to no statement")
            continue
        folded.setdefault((account.split(":")[1], period), Counter())[column] += amount
    stored = {
        (team, period): amounts
        for team, period, *amounts in conn.execute(
            "SELECT team, period, charged_nanousd, refunded_nanousd, paid_nanousd FROM statements"
        )
    }
    for team, period in sorted(stored.keys() | folded.keys()):
        fold = folded.get((team, period), Counter())
        expected = [fold["charged"], fold["refunded"], fold["paid"]]
        if stored.get((team, period)) != expected:
            yield Finding(
                "statements",
                f"{team}/{period}",
                f"charged, refunded, paid are {stored.get((team, period))}, but its entries add up to {expected}",
            )


def wrong_charges(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield settlements on the receivable that belong to another month than their request."""
    rows = conn.execute(
        "SELECT transactions.txn, team, admitted_at_ms, period FROM transactions JOIN usage ON usage.txn = "
        "transactions.txn WHERE kind = 'settlement'"
    ).fetchall()
    for txn, team, admitted_at_ms, period in rows:
        owed = any(account == receivable_account(team) for account, _ in _entries(conn, txn)) if period else False
        if period is not None and (not owed or period != periods_of(admitted_at_ms)[0]):
            yield Finding("transactions", str(txn), f"it is charged to {period}, which is not its request's month")


def wrong_payments(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield payments not to one receivable, or in their own month without a raise of the same amount."""
    rows = conn.execute(
        "SELECT transactions.txn, period, transactions.at_ms, adjustment_id, cap_adjustments.team, "
        "cap_adjustments.amount_nanousd FROM transactions LEFT JOIN cap_adjustments USING (txn) WHERE kind = 'payment'"
    ).fetchall()
    for txn, period, at_ms, adjustment_id, team, raised in rows:
        entries = dict(_entries(conn, txn))
        paid = -entries.pop(PAYMENTS, 0)
        if paid <= 0 or len(entries) != 1:
            yield Finding("transactions", str(txn), "it does not pay one team's statement")
        if (adjustment_id is None) != (period != periods_of(at_ms)[0]):
            yield Finding(
                "transactions", str(txn), f"it pays {period}, {'without' if adjustment_id is None else 'with'} a raise"
            )
        if adjustment_id is not None and entries != {receivable_account(team): raised}:
            yield Finding("cap_adjustments", str(adjustment_id), f"it raises by {raised}, but {paid} was paid")


def wrong_tiers(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield teams whose earned tier is below the one they have paid for."""
    catalog = catalog_in_force(conn)
    for (team,) in conn.execute("SELECT team FROM teams").fetchall():
        row = read_billing(conn, team)
        least = catalog.earned_tier(qualifying_nanousd(conn, team), payment_method=row.payment_method)
        if row.earned_tier < least:
            yield Finding("billing", team, f"its earned tier is {row.earned_tier}, but it has paid for {least}")


def _entries(conn: sqlite3.Connection, txn: int) -> Entries:
    return conn.execute("SELECT account, amount_nanousd FROM entries WHERE txn = ?", (txn,)).fetchall()
