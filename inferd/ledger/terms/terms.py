"""The terms on which a team buys: plan, tier, what happens at zero, raises of its caps (BILLING R1, R2, R6, R7)."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from inferd.ledger.storage.rows import insert
from inferd.ledger.terms.catalog import IN_FORCE, catalog_in_force, catalog_of
from inferd.ledger.terms.limits import BY_OPERATOR, TierChoice
from inferd.plans import AlertPolicy, Overage, Plan, Tier


@dataclass(frozen=True, slots=True)
class Terms:
    """A team's terms at one moment. Teams of one plan mostly have the same.

    Attributes:
        overage: what happens at zero, as it is in effect; `overage_source` says why.
        tier: the tier in effect; `tier_source` says why, `tier_limits` what it allows.
        raised_nanousd: what the raises in force at that moment add to each cap of the team.
        has_budgets: whether the team, or a project, user or key of it, has any.
        alerts: when somebody is told of its spending.
    """

    plan: Plan
    tier: int
    tier_source: str
    tier_limits: Tier
    overage: Overage
    overage_source: str
    payment_method: bool
    earned_tier: int
    raised_nanousd: int
    has_budgets: bool
    alerts: AlertPolicy

    @property
    def postpaid(self) -> bool:
        return self.overage == "postpaid"


@dataclass(frozen=True, slots=True)
class BillingRow:
    """Stored facts of a team.

    Attributes:
        overage: what the operator set; None: nothing, so its plan's holds.
        team_overage: what the team chose for itself; None: nothing.
    """

    overage: Overage | None = None
    payment_method: bool = False
    earned_tier: int = 0
    team_overage: Overage | None = None


TERMS_VERSION = "(SELECT version FROM terms)"
"""SQL of a number that changes whenever the terms of any team do, and is never the same for others (schema 12: each
table that _TERMS reads has triggers for it)."""

_TERMS = (
    "SELECT plan, tier_override, tier_override_until_ms, overage, team_overage, coalesce(payment_method, 0), "
    f"coalesce(earned_tier, 0), {IN_FORCE}, "
    "(SELECT sum(iif(until_ms > ?1 AND from_ms <= ?1, amount_nanousd, 0)) FROM cap_adjustments "
    "WHERE cap_adjustments.team = teams.team), "
    "EXISTS (SELECT 1 FROM budgets WHERE budgets.team = teams.team) "
    "FROM teams LEFT JOIN billing USING (team) WHERE teams.team = ?2"
)
_TEAMS_REMEMBERED = 16_384


def terms_of(conn: sqlite3.Connection, team: str, at_ms: int, *, version: int | None = None) -> Terms:
    """The terms of an existing team.

    Args:
        version: TERMS_VERSION as it was read in this transaction. Terms that do not depend on the moment are read once
            a version.
    """
    remembered = [] if version is None else _place(version, team)
    if remembered:
        return remembered[0]
    row = conn.execute(_TERMS, (at_ms, team)).fetchone()
    _, _, override_until_ms, *_, raised_nanousd, _ = row
    terms = _terms(row, None if override_until_ms is None else at_ms)
    if override_until_ms is None and raised_nanousd is None:
        remembered.append(terms)
    return terms


@lru_cache(maxsize=_TEAMS_REMEMBERED)
def _place(version: int, team: str) -> list[Terms]:
    """Where the terms that `version` stands for are kept, once they were read."""
    return []


@lru_cache(maxsize=4096)
def _terms(row: tuple[Any, ...], at_ms: int | None) -> Terms:
    """What a row of _TERMS says; `at_ms` matters only to an override that ends. There are few different rows, however
    many teams there are. The row is the cache's key, so this cannot be out of date."""
    plan_name, override, until_ms, set_overage, team_overage, payment_method, earned, *others = row
    catalog_text, raised_nanousd, has_budgets = others
    catalog = catalog_of(catalog_text)
    plan = catalog.plans[plan_name]
    tier, tier_source = TierChoice(override, until_ms, earned).in_effect(plan, at_ms or 0)
    overage, overage_source = _overage(plan, set_overage, team_overage, tier, bool(payment_method))
    return Terms(
        plan=plan,
        tier=tier,
        tier_source=tier_source,
        tier_limits=catalog.tiers[tier],
        overage=overage,
        overage_source=overage_source,
        payment_method=bool(payment_method),
        earned_tier=earned,
        raised_nanousd=raised_nanousd or 0,
        has_budgets=bool(has_budgets),
        alerts=catalog.alerts,
    )


def may_choose_postpaid(plan: Plan, set_overage: Overage | None) -> bool:
    """Whether a team may choose pay-as-you-go for itself: unless the operator set something else, or the plan says that
    the team contacts the operator."""
    return set_overage == "postpaid" or (set_overage is None and plan.overage != "contact")


def _overage(
    plan: Plan, set_overage: Overage | None, team_overage: Overage | None, tier: int, payment_method: bool
) -> tuple[Overage, str]:
    """The rule at zero credit, and its origin. A team's choice makes the operator's `set_overage` only stricter."""
    wanted, source = (plan.overage, f"plan {plan.name}") if set_overage is None else (set_overage, BY_OPERATOR)
    if team_overage is not None and (team_overage != "postpaid" or may_choose_postpaid(plan, set_overage)):
        wanted, source = team_overage, "chosen by the team"
    if wanted == "postpaid" and tier == 0:
        return "block", "postpaid is impossible at tier 0"
    if wanted == "postpaid" and plan.payment_method_required and not payment_method:
        return "block", f"postpaid needs a payment method on plan {plan.name}"
    return wanted, source


def read_billing(conn: sqlite3.Connection, team: str) -> BillingRow:
    row = conn.execute(
        "SELECT overage, payment_method, earned_tier, team_overage FROM billing WHERE team = ?", (team,)
    ).fetchone()
    return BillingRow() if row is None else BillingRow(row[0], bool(row[1]), *row[2:])


def write_billing(conn: sqlite3.Connection, team: str, row: BillingRow, *, actor: str, now_ms: int) -> None:
    """Replace what is stored, if it changes."""
    if row == read_billing(conn, team):
        return
    conn.execute("DELETE FROM billing WHERE team = ?", (team,))
    values = {
        "team": team,
        "overage": row.overage,
        "payment_method": int(row.payment_method),
        "earned_tier": row.earned_tier,
        "changed_at_ms": now_ms,
        "changed_by": actor,
        "team_overage": row.team_overage,
    }
    insert(conn, "billing", values)


def qualifying_nanousd(conn: sqlite3.Connection, team: str) -> int:
    """Paid grants and paid statements, less what was taken back of paid grants (R2)."""
    granted: int = conn.execute(
        "SELECT coalesce(sum(amount_nanousd), 0) FROM grants WHERE team = ? AND kind = 'paid'", (team,)
    ).fetchone()[0]
    paid: int = conn.execute(
        "SELECT coalesce(sum(paid_nanousd), 0) FROM statements WHERE team = ?", (team,)
    ).fetchone()[0]
    taken: int = conn.execute(
        "SELECT coalesce(-sum(amount_nanousd), 0) FROM transactions JOIN entries USING (txn) "
        "WHERE kind IN ('withdrawal', 'void') AND account IN "
        "(SELECT 'team:' || team || ':credit:' || grant_id FROM grants WHERE team = ? AND kind = 'paid')",
        (team,),
    ).fetchone()[0]
    return granted + paid - taken


def raise_earned_tier(conn: sqlite3.Connection, team: str, *, actor: str, now_ms: int) -> None:
    """Money has come in, or a payment method: the earned tier rises if it is enough; it never falls by itself."""
    row = read_billing(conn, team)
    tier = catalog_in_force(conn).earned_tier(qualifying_nanousd(conn, team), payment_method=row.payment_method)
    if tier > row.earned_tier:
        write_billing(conn, team, replace(row, earned_tier=tier), actor=actor, now_ms=now_ms)
