"""Caps (BILLING R7): the limits of spending that bound a request, each in its own period.

The team has its plan's cap, its tier's monthly limit and its own budgets, each lifted by the adjustments in force;
project, key and user have their budgets. A cap bounds posted + held, and a hold must fit in every cap.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.terms.counters import CounterKey, Spend, spend_of
from inferd.ledger.terms.periods import LIFETIME, period_bounds_ms, period_label
from inferd.ledger.terms.terms import Terms
from inferd.money import display_usd
from inferd.subjects import team_subject

CapSource = Literal["plan", "tier", "budget", "team_budget"]
_KINDS = ("team", "project", "key", "user")


class Cap(msgspec.Struct, frozen=True):
    """One limit, and how much of it is used.

    Attributes:
        scope: the subject that it bounds, such as `team:acme`.
        source: `budget` is the operator's, `team_budget` the team's own; `source_name` is for people.
        period: `2026-11`, `2026` or `lifetime`.
        base_nanousd: the limit before adjustments, which only caps of the team have.
    """

    scope: str
    source: CapSource
    source_name: str
    period: str
    base_nanousd: int
    raised_nanousd: int
    spend: Spend

    @property
    def limit_nanousd(self) -> int:
        return self.base_nanousd + self.raised_nanousd

    @property
    def left_nanousd(self) -> int:
        """The largest hold that fits."""
        return max(0, self.limit_nanousd - self.spend.posted_nanousd - self.spend.held_nanousd)

    @property
    def left_without_holds_nanousd(self) -> int:
        """The rest of the limit if every open hold were voided."""
        return max(0, self.limit_nanousd - self.spend.posted_nanousd)

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
            f"{display_usd(self.spend.posted_nanousd)} is spent and {display_usd(self.spend.held_nanousd)} held by "
            f"requests under way"
        )


def team_caps(conn: sqlite3.Connection, team: str, terms: Terms, at_ms: int) -> list[Cap]:
    """Return the caps of a team, in the periods of `at_ms`."""
    return caps_of_subjects(conn, team, terms, [team_subject(team)], at_ms)


def caps_of(
    conn: sqlite3.Connection,
    terms: Terms,
    attribution: Attribution,
    at_ms: int,
    known: Mapping[CounterKey, Spend] | None = None,
) -> list[Cap]:
    """Return every cap that bounds a request of `attribution`, admitted at `at_ms`; the team's first.

    Args:
        known: the spend that the caller has just read.
    """
    # Without budgets, only the team has caps.
    subjects = attribution.subjects if terms.has_budgets else ()
    return caps_of_subjects(conn, attribution.team, terms, subjects, at_ms, known)


def caps_of_subjects(
    conn: sqlite3.Connection,
    team: str,
    terms: Terms,
    subjects: Sequence[str],
    at_ms: int,
    known: Mapping[CounterKey, Spend] | None = None,
) -> list[Cap]:
    """Return the caps of the team and the budgets of `subjects`, in the periods of `at_ms`."""
    spend = dict(known or {})
    caps = []
    for subject, source, name, kind, base_nanousd in _limits(conn, team, terms, subjects):
        key = (subject, period_label(kind, at_ms))
        if key not in spend:
            spend[key] = spend_of(conn, team, *key)
        raised = terms.raised_nanousd if subject.startswith("team:") else 0
        caps.append(Cap(subject, source, name, key[1], base_nanousd, raised, spend[key]))
    return caps


def _limits(
    conn: sqlite3.Connection, team: str, terms: Terms, subjects: Sequence[str]
) -> Iterator[tuple[str, CapSource, str, str, int]]:
    """Yield (subject, source, its name, month|year|lifetime, nano-USD) of each cap."""
    plan, subject = terms.plan, team_subject(team)
    yield subject, "plan", f"plan {plan.name}", plan.cap_period, plan.cap_nanousd
    tier_nanousd = terms.tier_limits.monthly_nanousd
    if tier_nanousd is not None:
        yield subject, "tier", f"tier {terms.tier}", "month", tier_nanousd
    if not terms.has_budgets:
        return
    places = ", ".join("?" * len(subjects))
    rows = conn.execute(
        f"SELECT scope, period, authority, amount_nanousd FROM budgets WHERE scope IN ({places})", subjects
    ).fetchall()
    for subject, kind, authority, amount_nanousd in sorted(
        rows, key=lambda row: (_KINDS.index(row[0].partition(":")[0]), row)
    ):
        if authority == "team":
            yield subject, "team_budget", "budget of the team", kind, amount_nanousd
        else:
            yield subject, "budget", "budget", kind, amount_nanousd
