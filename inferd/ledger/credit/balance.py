"""Credit of a team: balance, holds and debt."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from inferd.ledger.credit.accounts import balance_nanousd, receivable_account
from inferd.ledger.credit.grants import available_nanousd, open_grants
from inferd.ledger.credit.included_credit import due_grant
from inferd.ledger.terms import counters
from inferd.ledger.terms.caps import Cap, spending_caps
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.terms import terms_of
from inferd.money import display_usd


@dataclass(frozen=True, slots=True)
class Credit:
    """A team's credit at one moment.

    Attributes:
        balance_nanousd: unspent credit, with the included credit that is due; without expired credit, but with the
            part of it that still covers holds.
        available_nanousd: the largest hold of a new request: `unheld_nanousd`, or for a postpaid team the rest of its
            tightest cap.
        held_nanousd: the sum of the open holds.
        owed_nanousd: the team's debt; below zero if refunds exceed it.
        overage: the rule at zero credit.
        unheld_nanousd: the credit without the open holds, at most the rest of every cap of the team.
        cap: the team's tightest cap.
    """

    team: str
    balance_nanousd: int
    available_nanousd: int
    held_nanousd: int
    owed_nanousd: int
    overage: str
    unheld_nanousd: int
    cap: Cap

    @property
    def postpaid_bound(self) -> str | None:
        """`$6,000.00 a month (plan pro)`: the most that a postpaid team can spend; None for other teams."""
        if self.overage != "postpaid":
            return None
        return f"{display_usd(self.cap.limit)} {self.cap.span} ({self.cap.source_name})"

    def describe(self) -> str:
        """Return `$5.00 of credit`; for a postpaid team also the most that it may owe."""
        credit = f"{display_usd(self.balance_nanousd)} of credit" if self.balance_nanousd else "no credit"
        if self.postpaid_bound is None:
            return credit
        if self.balance_nanousd:
            return f"{credit}; postpaid: it may spend up to {self.postpaid_bound} and owe what credit does not cover"
        return f"{credit}; postpaid: it may owe up to {self.postpaid_bound}"


def caps_below_balance(conn: sqlite3.Connection, team: str, now_ms: int) -> list[str]:
    """Return a sentence for each cap that keeps a team from spending all of its credit (BILLING R1)."""
    balance_nanousd = credit_of(conn, team, now_ms).balance_nanousd
    return [
        f"{cap.source_name} lets the team spend only {display_usd(cap.left_without_holds)} more "
        f"{'in all' if cap.resets_at_ms is None else f'in {cap.period}'}, which is below its balance of "
        f"{display_usd(balance_nanousd)}"
        for cap in spending_caps(conn, team, terms_of(conn, team, now_ms), now_ms)
        if cap.left_without_holds < balance_nanousd
    ]


def credit_of(conn: sqlite3.Connection, team: str, now_ms: int) -> Credit:
    """Return the credit of an existing team, without credit that has expired by `now_ms`. Reads only."""
    held_nanousd = counters.held_nanousd(conn, team)
    at_ms, terms = expiry_ms(conn, now_ms), terms_of(conn, team, now_ms)
    grants = [*open_grants(conn, team)]
    due = due_grant(conn, team, terms.plan, at_ms, now_ms)
    if due is not None:
        grants.append(due)
    cap = min(spending_caps(conn, team, terms, now_ms), key=lambda each: each.left)
    unheld_nanousd = available_nanousd(grants, held_nanousd, at_ms)
    unspent_nanousd = sum(grant.remaining_nanousd for grant in grants)
    return Credit(
        team=team,
        balance_nanousd=min(unspent_nanousd, max(available_nanousd(grants, 0, at_ms), held_nanousd)),
        available_nanousd=cap.left if terms.postpaid else min(unheld_nanousd, cap.left),
        held_nanousd=held_nanousd,
        owed_nanousd=-balance_nanousd(conn, receivable_account(team)),
        overage=terms.overage,
        unheld_nanousd=min(unheld_nanousd, cap.left),
        cap=cap,
    )
