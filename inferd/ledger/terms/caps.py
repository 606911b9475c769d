"""Caps (BILLING R7): the limits that bound a request, each in its own unit and period.

The team has its plan's cap, its tier's monthly limit and its own budgets; those of money are lifted by the adjustments
in force. Project, key and user have their budgets, or else the defaults that their team has for each of them. A cap
bounds posted + held, and a hold must fit in every cap.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.terms.budgets import EACH, each_scope
from inferd.ledger.terms.counters import CounterKey, Spend, spend_of
from inferd.ledger.terms.periods import LIFETIME, period_bounds_ms, period_kind, period_label
from inferd.ledger.terms.terms import Terms
from inferd.plans import PeriodKind, Unit
from inferd.subjects import team_subject
from inferd.units import display_amount

CapSource = Literal["plan", "tier", "budget", "team_budget", "default", "team_default"]
_KINDS = ("team", "project", "key", "user")
_CODES = {"usd": "spend", "tokens": "token", "compute_ms": "compute"}


class Cap(msgspec.Struct, frozen=True):
    """One limit, and how much of it is used. All amounts are in its unit, of `usd` in nano-USD.

    Attributes:
        scope: the subject that it bounds, such as `team:acme`.
        source: `budget` is the operator's, `team_budget` the team's own, `default` and `team_default` the ones for each
            project, key or user; `source_name` is for people.
        period: `2026-11-30`, `2026-W49`, `2026-11`, `2026` or `lifetime`.
        base: the limit before adjustments, which only caps of the team have.
    """

    scope: str
    source: CapSource
    source_name: str
    period: str
    base: int
    raised: int
    spend: Spend
    unit: Unit = "usd"

    @property
    def limit(self) -> int:
        return self.base + self.raised

    @property
    def left(self) -> int:
        """The largest hold that fits."""
        return max(0, self.limit - self.spend.posted - self.spend.held)

    @property
    def left_without_holds(self) -> int:
        """The rest of the limit if every open hold were voided."""
        return max(0, self.limit - self.spend.posted)

    @property
    def kind(self) -> str:
        """`team`, `project`, `key` or `user`."""
        return self.scope.partition(":")[0]

    @property
    def code(self) -> str:
        return f"{self.kind}_{_CODES[self.unit]}_limit_exceeded"

    @property
    def set_by_team(self) -> bool:
        return self.source in ("team_budget", "team_default")

    @property
    def resets_at_ms(self) -> int | None:
        return period_bounds_ms(self.period)[1]

    @property
    def span(self) -> str:
        """`a month`, `a year`, ..., or `in all`."""
        return "in all" if self.period == LIFETIME else f"a {period_kind(self.period)}"

    def text(self, amount: int) -> str:
        """Return an amount of its unit for people."""
        return display_amount(self.unit, amount)

    def describe(self) -> str:
        """`team 'acme' may spend $100.000000000 in 2026-11 (plan free), of which ...`, for a refusal."""
        kind, _, name = self.scope.partition(":")
        name = name.partition("/")[2] if kind in ("project", "user") else name
        when = (
            "in all"
            if self.period == LIFETIME
            else f"{'on' if period_kind(self.period) == 'day' else 'in'} {self.period}"
        )
        verb, used = ("spend", "spent") if self.unit == "usd" else ("use", "used")
        what = " of compute time" if self.unit == "compute_ms" else ""
        return (
            f"{kind} '{name}' may {verb} {self.text(self.limit)}{what} {when} ({self.source_name}), of which "
            f"{self.text(self.spend.posted)} {_is(self.unit, self.spend.posted)} {used} and "
            f"{self.text(self.spend.held)} held by requests under way"
        )


def _is(unit: Unit, amount: int) -> str:
    return "are" if unit == "tokens" and amount != 1 else "is"


def spending_caps(conn: sqlite3.Connection, team: str, terms: Terms, at_ms: int) -> list[Cap]:
    """Return the caps of a team's money, in the periods of `at_ms`."""
    return [cap for cap in caps_of_subjects(conn, team, terms, [team_subject(team)], at_ms) if cap.unit == "usd"]


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
    """Return the caps of the team and those of `subjects`, in the periods of `at_ms`."""
    spend = dict(known or {})
    caps = []
    for limit in _limits(conn, team, terms, subjects):
        key = (limit.subject, limit.unit, period_label(limit.period, at_ms))
        if key not in spend:
            spend[key] = spend_of(conn, team, *key)
        raised = terms.raised_nanousd if limit.unit == "usd" and limit.subject.startswith("team:") else 0
        cap = Cap(limit.subject, limit.source, limit.name, key[2], limit.amount, raised, spend[key], limit.unit)
        caps.append(cap)
    return caps


class _Limit(NamedTuple):
    """A limit without its counter; `name` is that of the source."""

    subject: str
    source: CapSource
    name: str
    period: PeriodKind
    unit: Unit
    amount: int


def _limits(conn: sqlite3.Connection, team: str, terms: Terms, subjects: Sequence[str]) -> Iterator[_Limit]:
    """Yield the limit of each cap."""
    plan, subject = terms.plan, team_subject(team)
    yield _Limit(subject, "plan", f"plan {plan.name}", plan.cap_period, "usd", plan.cap_nanousd)
    tier_nanousd = terms.tier_limits.monthly_nanousd
    if tier_nanousd is not None:
        yield _Limit(subject, "tier", f"tier {terms.tier}", "month", "usd", tier_nanousd)
    if not terms.has_budgets:
        return
    yield from sorted(_budget_limits(conn, team, subjects), key=_order)


def _order(limit: _Limit) -> tuple[int, str, str, str, str]:
    return (_KINDS.index(limit.subject.partition(":")[0]), limit.subject, limit.period, limit.source, limit.unit)


def _budget_limits(conn: sqlite3.Connection, team: str, subjects: Sequence[str]) -> Iterator[_Limit]:
    """Yield the budgets of `subjects`, and the defaults of those that have no budget of the same unit, period and
    authority."""
    defaults = {each_scope(kind, team): kind for kind in EACH if any(each.startswith(f"{kind}:") for each in subjects)}
    scopes = [*subjects, *defaults]
    places = ", ".join("?" * len(scopes))
    rows = conn.execute(
        f"SELECT scope, period, authority, unit, amount FROM budgets WHERE scope IN ({places})", scopes
    ).fetchall()
    own = {tuple(row[:4]) for row in rows if row[0] not in defaults}
    for scope, period, authority, unit, amount in rows:
        by_team = authority == "team"
        if scope not in defaults:
            name = "budget of the team" if by_team else "budget"
            yield _Limit(scope, "team_budget" if by_team else "budget", name, period, unit, amount)
            continue
        kind = defaults[scope]
        name = f"default of each {kind}{', set by the team' if by_team else ''}"
        for subject in subjects:
            if subject.startswith(f"{kind}:") and (subject, period, authority, unit) not in own:
                yield _Limit(subject, "team_default" if by_team else "default", name, period, unit, amount)
