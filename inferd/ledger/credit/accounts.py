"""Double entry: every movement of money is a transaction whose entries add up to zero.

The accounts, all in nano-USD; a positive entry puts money into its account:

    funding:paid, funding:promotional    where credit comes from; minus what was granted of that kind and not taken back
    team:TEAM:credit:GRANT               what is left of one grant
    team:TEAM:receivable                 minus what the team owes
    revenue:MODEL                        what requests to one deployment have cost
    refunds                              minus what of that went back
    payments                             minus what was paid on statements
    expired                              what grants held when they expired

What an account's entries add up to is kept beside them, and the audit compares: of a grant as
`grants.remaining_nanousd`, of all others as `accounts.balance_nanousd`. The view `balances` has both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

from inferd.errors import InvalidValueError
from inferd.ledger.storage.rows import insert_all_covered, insert_covered
from inferd.money import display_usd

EXPIRED = "expired"
REFUNDS = "refunds"
PAYMENTS = "payments"
# The actor of what happens by rule, not by somebody's command.
BY_RULE = "inferd"

TransactionKind = Literal["grant", "settlement", "expiry", "refund", "withdrawal", "void", "payment"]


def funding_account(kind: str) -> str:
    return f"funding:{kind}"


def credit_account(team: str, grant_id: int) -> str:
    return f"team:{team}:credit:{grant_id}"


def receivable_account(team: str) -> str:
    return f"team:{team}:receivable"


def revenue_account(deployment: str) -> str:
    return f"revenue:{deployment}"


def _is_credit(account: str) -> bool:
    return account.startswith("team:") and ":credit:" in account


def balance_nanousd(conn: sqlite3.Connection, account: str) -> int:
    """The stored balance; 0 for an account without entries. Not of a grant's account."""
    assert not _is_credit(account), "what is left of a grant stands with the grant"
    row = conn.execute("SELECT balance_nanousd FROM accounts WHERE account = ?", (account,)).fetchone()
    return 0 if row is None else int(row[0])


def check_amount(what: str, amount_nanousd: int, most_nanousd: int | None = None, *, may_be_zero: bool = False) -> None:
    """Raises InvalidValueError unless the amount of a `what` (grant, refund, ...) is positive and at most that."""
    if amount_nanousd < 0 or (amount_nanousd == 0 and not may_be_zero):
        raise InvalidValueError(f"the amount of a {what} must be more than $0.00, not {display_usd(amount_nanousd)}")
    if most_nanousd is not None and amount_nanousd > most_nanousd:
        most, asked = display_usd(most_nanousd), display_usd(amount_nanousd)
        raise InvalidValueError(f"the amount of a {what} must be at most {most}, not {asked}")


def post(
    conn: sqlite3.Connection,
    kind: TransactionKind,
    postings: Sequence[tuple[str, int]],
    *,
    actor: str,
    at_ms: int,
    reason: str | None = None,
    request_id: str | None = None,
    period: str | None = None,
) -> int:
    """Write one transaction and move the stored balances; those of grants are moved by the caller.

    Args:
        postings: (account, nano-USD), no zeros, one a account, adding up to zero.
        period: the month whose statement or counters it changes.

    Returns:
        The transaction's number.
    """
    assert sum(amount for _, amount in postings) == 0, "a transaction adds up to zero"
    assert len({account for account, _ in postings}) == len(postings), "one entry an account"
    txn: int = conn.execute("SELECT coalesce(max(txn), 0) + 1 FROM transactions").fetchone()[0]
    insert_covered(conn, "transactions", (txn, kind, request_id, actor, reason, at_ms, period))
    lines = [(txn, line, account, amount_nanousd) for line, (account, amount_nanousd) in enumerate(postings, start=1)]
    insert_all_covered(conn, "entries", lines)
    conn.executemany(
        "INSERT INTO accounts (account, balance_nanousd) VALUES (?, ?) "
        "ON CONFLICT (account) DO UPDATE SET balance_nanousd = balance_nanousd + excluded.balance_nanousd",
        [posting for posting in postings if not _is_credit(posting[0])],
    )
    return txn
