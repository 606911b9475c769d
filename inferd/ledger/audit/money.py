"""Audit of money: entries against transactions, balances and grants."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import get_args

from inferd.ledger.audit import Finding
from inferd.ledger.credit.accounts import TransactionKind, credit_account, funding_account


def unbalanced_transactions(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield transactions of an unknown kind, and those whose entries do not add up to zero."""
    rows = conn.execute(
        "SELECT txn, kind, count(line), coalesce(sum(amount_nanousd), 0) "
        "FROM transactions LEFT JOIN entries USING (txn) GROUP BY txn"
    )
    for txn, kind, lines, total in rows:
        if kind not in get_args(TransactionKind):
            yield Finding("transactions", str(txn), f"its kind {kind!r} is unknown")
        if lines < 2 or total != 0:
            yield Finding("transactions", str(txn), f"its {lines} entries add up to {total}, not to zero")


def loose_entries(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield entries without a transaction or an account."""
    rows = conn.execute(
        "SELECT txn, line, account FROM entries WHERE txn NOT IN (SELECT txn FROM transactions) "
        "OR account NOT IN (SELECT account FROM balances)"
    )
    for txn, line, account in rows:
        yield Finding("entries", f"{txn}/{line}", f"its transaction or its account {account} does not exist")


def wrong_balances(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield stored balances that are not the sum of their account's entries."""
    rows = conn.execute(
        "SELECT accounts.account, balance_nanousd, coalesce(sum(amount_nanousd), 0) AS folded "
        "FROM accounts LEFT JOIN entries USING (account) GROUP BY accounts.account HAVING balance_nanousd <> folded"
    )
    for account, stored, folded in rows:
        yield Finding("accounts", account, f"its balance is {stored}, but its entries add up to {folded}")


def wrong_grants(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield grants that did not come from their funding account, or whose rest is not the sum of their entries."""
    rows = conn.execute(
        "SELECT grant_id, team, kind, amount_nanousd, remaining_nanousd, used_up, txn FROM grants"
    ).fetchall()
    folded = dict(conn.execute("SELECT account, sum(amount_nanousd) FROM entries GROUP BY account").fetchall())
    known = set()
    for grant_id, team, kind, amount, remaining, used_up, txn in rows:
        account = credit_account(team, grant_id)
        known.add(account)
        if folded.get(account, 0) != remaining:
            yield Finding(
                "grants", str(grant_id), f"{remaining} remains, but its entries add up to {folded.get(account, 0)}"
            )
        if used_up != (1 if remaining == 0 else None):
            yield Finding("grants", str(grant_id), f"{remaining} remains, but used_up is {used_up}")
        entries = conn.execute("SELECT account, amount_nanousd FROM entries WHERE txn = ?", (txn,)).fetchall()
        if sorted(entries) != sorted([(account, amount), (funding_account(kind), -amount)]):
            yield Finding("grants", str(grant_id), f"transaction {txn} does not grant {amount} to it from {kind} funds")
    for account in folded:
        if account.startswith("team:") and ":credit:" in account and account not in known:
            yield Finding("accounts", account, "there is no such grant")


def overdrawn_teams(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield teams whose open holds exceed their grants.

    Credit that covers a hold covers all holds that are open when it is admitted. Only a later hold, admitted postpaid,
    can take that credit away, also after it was settled, because its settlement debits credit first. Holds of amount
    zero prove nothing. Rowids are in the order of admission.
    """
    rows = conn.execute(
        "WITH holding AS (SELECT team, sum(amount_nanousd) AS held, "
        "coalesce(max(iif(postpaid IS NULL AND amount_nanousd > 0, rowid, NULL)), min(rowid) - 1) AS covered "
        "FROM holds WHERE state = 'held' GROUP BY team), "
        "funded AS (SELECT *, coalesce((SELECT sum(remaining_nanousd) FROM grants "
        "WHERE grants.team = holding.team), 0) AS credit FROM holding) "
        "SELECT team, held, credit FROM funded WHERE held > credit AND NOT EXISTS (SELECT 1 FROM holds AS later "
        "WHERE later.rowid > funded.covered AND later.team = funded.team AND later.postpaid = 1)"
    )
    for team, held, credit in rows:
        yield Finding("teams", team, f"its open holds are {held}, but its grants have only {credit}")
