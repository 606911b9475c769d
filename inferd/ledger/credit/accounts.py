"""Double entry: every movement of money is a transaction whose entries add up to zero.

The accounts, all in nano-USD; a positive entry puts money into its account:

    funding:paid, funding:promotional    the source of credit: minus the grants of that kind that were not taken back
    team:TEAM:credit:GRANT               the rest of one grant
    team:TEAM:receivable                 minus the team's debt
    revenue:MODEL                        the cost of all requests to one deployment
    refunds                              minus the refunds of requests
    payments                             minus the payments of statements
    expired                              the rest of grants when they expired

The sum of an account's entries is stored, too, and the audit compares: for a grant in `grants.remaining_nanousd`, for
all other accounts in `accounts.balance_nanousd`. The view `balances` has both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

import msgspec

from inferd.errors import InvalidValueError
from inferd.ledger.storage.rows import insert_all_covered, insert_covered
from inferd.money import display_usd

EXPIRED = "expired"
REFUNDS = "refunds"
PAYMENTS = "payments"
# The actor of a change by a rule, not by a command.
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
    """Return the stored balance, 0 for an account without entries; not for a grant's account."""
    assert not _is_credit(account), "the rest of a grant is in the table grants"
    row = conn.execute("SELECT balance_nanousd FROM accounts WHERE account = ?", (account,)).fetchone()
    return 0 if row is None else int(row[0])


def check_amount(what: str, amount_nanousd: int, most_nanousd: int | None = None, *, may_be_zero: bool = False) -> None:
    """Raise InvalidValueError unless the amount of a `what` (grant, refund, ...) is positive and at most
    `most_nanousd`."""
    if amount_nanousd < 0 or (amount_nanousd == 0 and not may_be_zero):
        raise InvalidValueError(f"the amount of a {what} must be more than $0.00, not {display_usd(amount_nanousd)}")
    if most_nanousd is not None and amount_nanousd > most_nanousd:
        most, asked = display_usd(most_nanousd), display_usd(amount_nanousd)
        raise InvalidValueError(f"the amount of a {what} must be at most {most}, not {asked}")


class Transaction(msgspec.Struct, frozen=True):
    """A transaction to post.

    Attributes:
        period: the month whose statement or counters it changes.
    """

    kind: TransactionKind
    actor: str
    at_ms: int
    reason: str | None = None
    request_id: str | None = None
    period: str | None = None


def post(conn: sqlite3.Connection, transaction: Transaction, postings: Sequence[tuple[str, int]]) -> int:
    """Insert one transaction and update the stored balances; the caller updates those of grants.

    Args:
        postings: (account, nano-USD), one for each account, not zero, adding up to zero.

    Returns:
        The transaction's number.
    """
    assert sum(amount for _, amount in postings) == 0, "a transaction adds up to zero"
    assert len({account for account, _ in postings}) == len(postings), "one entry an account"
    txn: int = conn.execute("SELECT coalesce(max(txn), 0) + 1 FROM transactions").fetchone()[0]
    covered = (
        txn,
        transaction.kind,
        transaction.request_id,
        transaction.actor,
        transaction.reason,
        transaction.at_ms,
        transaction.period,
    )
    insert_covered(conn, "transactions", covered)
    lines = [(txn, line, account, amount_nanousd) for line, (account, amount_nanousd) in enumerate(postings, start=1)]
    insert_all_covered(conn, "entries", lines)
    conn.executemany(
        "INSERT INTO accounts (account, balance_nanousd) VALUES (?, ?) "
        "ON CONFLICT (account) DO UPDATE SET balance_nanousd = balance_nanousd + excluded.balance_nanousd",
        [posting for posting in postings if not _is_credit(posting[0])],
    )
    return txn
