"""Caps (BILLING R7): every limit of spending that a request must keep, each in its own period; all must pass.

Of the team: its plan's cap, its tier's monthly limit and its own budgets, each lifted by the raises in force. Of
project, key and user: their budgets. A cap bounds posted + held.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from inferd.attribution import Attribution
from inferd.instants import format_instant
from inferd.ledger.terms.counters import Cell, Count, count
from inferd.ledger.terms.periods import LIFETIME, period_bounds_ms, period_label
from inferd.ledger.terms.terms import Terms
from inferd.money import display_usd, format_usd
from inferd.subjects import team_subject

CapSource = Literal["plan", "tier", "budget", "team_budget"]
_KINDS = ("team", "project", "key", "user")


class Cap(msgspec.Struct, frozen=True):
    """One limit, and how much of it is used.

    Attributes:
        scope: as in counters, such as `team:acme`.
        source: where it comes from: `budget` is the operator's, `team_budget` the team's own; `source_name` names it
            for people.
        period: `2026-11`, `2026` or `lifetime`.
        base_nanousd: before raises, which only caps of the team have.
    """

    scope: str
    source: CapSource
    source_name: str
    period: str
    base_nanousd: int
    raised_nanousd: int
    count: Count

    @property
    def limit_nanousd(self) -> int:
        return self.base_nanousd + self.raised_nanousd

    @property
    def left_nanousd(self) -> int:
        """What a new hold can take."""
        return max(0, self.limit_nanousd - self.count.posted_nanousd - self.count.held_nanousd)

    @property
    def left_without_holds_nanousd(self) -> int:
        """What is left once every open hold has come to nothing."""
        return max(0, self.limit_nanousd - self.count.posted_nanousd)

    @property
    def kind(self) -> str:
        """`team`, `project`, `key` or `user`."""
        return self.scope.partition(":")[0]

    @property
    def code(self) -> str:
        return f"{self.kind}_spend_limit_exceeded"

    @property
    def resets_at_ms(self) -> int | None:
        return period_bounds_ms(self.period)[1]

    @property
    def span(self) -> str:
        """`a month`, `a year` or `in all`."""
        if self.period == LIFETIME:
            return "in all"
        return "a month" if "-" in self.period else "a year"

    def describe(self) -> str:
        """`team 'acme' may spend $100.000000000 in 2026-11 (plan free), of which ...`, for a refusal."""
        kind, _, name = self.scope.partition(":")
        name = name.partition("/")[2] if kind in ("project", "user") else name
        when = "in all" if self.period == LIFETIME else f"in {self.period}"
        return (
            f"{kind} '{name}' may spend {display_usd(self.limit_nanousd)} {when} ({self.source_name}), of which "
            f"{display_usd(self.count.posted_nanousd)} is spent and {display_usd(self.count.held_nanousd)} held by "
            f"requests under way"
        )

    def to_json(self) -> dict[str, object]:
        return {
            "scope": self.scope,
            "source": self.source,
            "source_name": self.source_name,
            "period": self.period,
            "limit_usd": format_usd(self.limit_nanousd),
            "base_usd": format_usd(self.base_nanousd),
            "raised_usd": format_usd(self.raised_nanousd),
            "posted_usd": format_usd(self.count.posted_nanousd),
            "held_usd": format_usd(self.count.held_nanousd),
            "left_usd": format_usd(self.left_nanousd),
            "resets_at": None if self.resets_at_ms is None else format_instant(self.resets_at_ms),
        }


def team_caps(conn: sqlite3.Connection, team: str, terms: Terms, at_ms: int) -> list[Cap]:
    """The caps of a team, in the periods of `at_ms`."""
    return caps_of_scopes(conn, team, terms, [team_subject(team)], at_ms)


def caps_of(
    conn: sqlite3.Connection,
    terms: Terms,
    attribution: Attribution,
    at_ms: int,
    known: Mapping[Cell, Count] | None = None,
) -> list[Cap]:
    """Every cap that a request of `attribution`, admitted at `at_ms`, must keep; those of the team first.

    Args:
        known: counters that the caller has just read.
    """
    # Only budgets ask which scopes there are beside the team.
    scopes = attribution.subjects if terms.has_budgets else ()
    return caps_of_scopes(conn, attribution.team, terms, scopes, at_ms, known)


def caps_of_scopes(
    conn: sqlite3.Connection,
    team: str,
    terms: Terms,
    scopes: Sequence[str],
    at_ms: int,
    known: Mapping[Cell, Count] | None = None,
) -> list[Cap]:
    """Those of the team, and the budgets of `scopes`, in the periods of `at_ms`."""
    counts = dict(known or {})
    caps = []
    for scope, source, name, kind, base_nanousd in _limits(conn, team, terms, scopes):
        cell = (scope, period_label(kind, at_ms))
        if cell not in counts:
            counts[cell] = count(conn, team, *cell)
        raised = terms.raised_nanousd if scope.startswith("team:") else 0
        caps.append(Cap(scope, source, name, cell[1], base_nanousd, raised, counts[cell]))
    return caps


def _limits(
    conn: sqlite3.Connection, team: str, terms: Terms, scopes: Sequence[str]
) -> Iterator[tuple[str, CapSource, str, str, int]]:
    """(scope, source, its name, month|year|lifetime, nano-USD)."""
    plan, scope = terms.plan, team_subject(team)
    yield scope, "plan", f"plan {plan.name}", plan.cap_period, plan.cap_nanousd
    tier_nanousd = terms.tier_limits.monthly_nanousd
    if tier_nanousd is not None:
        yield scope, "tier", f"tier {terms.tier}", "month", tier_nanousd
    if not terms.has_budgets:
        return
    rows = conn.execute(
        f"SELECT scope, period, authority, amount_nanousd FROM budgets WHERE scope IN ({', '.join('?' * len(scopes))})",
        scopes,
    ).fetchall()
    for scope, kind, authority, amount_nanousd in sorted(
        rows, key=lambda row: (_KINDS.index(row[0].partition(":")[0]), row)
    ):
        if authority == "team":
            yield scope, "team_budget", "budget of the team", kind, amount_nanousd
        else:
            yield scope, "budget", "budget", kind, amount_nanousd
