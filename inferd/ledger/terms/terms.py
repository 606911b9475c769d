"""Terms of a team: plan, tier, overage at zero credit and adjustments of its caps (BILLING R1, R2, R6, R7)."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from inferd.ledger.storage.rows import insert
from inferd.ledger.terms.catalog import IN_FORCE, catalog_in_force, catalog_of
from inferd.ledger.terms.limits import BY_OPERATOR, TierChoice
from inferd.plans import AlertPolicy, Overage, Plan, Tier


@dataclass(frozen=True, slots=True)
class Terms:
    """A team's terms at one moment. Most teams of a plan have equal terms.

    Attributes:
        tier: the tier in effect; `tier_source` says why, `tier_limits` has its limits.
        overage: the rule at zero credit in effect; `overage_source` says why.
        raised_nanousd: added to each cap of the team by the adjustments in force at that moment.
        has_budgets: whether the team, or a project, user or key of it, has a budget.
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
    """A team's row of the table `billing`.

    Attributes:
        overage: set by the operator; None: the plan's applies.
        team_overage: chosen by the team for itself; None: no choice.
    """

    overage: Overage | None = None
    payment_method: bool = False
    earned_tier: int = 0
    team_overage: Overage | None = None


class TermsCache:
    """Terms by the version of the table `terms` and team; a full cache drops the entries that were added first.

    The version changes with the terms of any team, and no other terms ever get the same one (schema.sql), so an entry
    cannot be out of date. With it a team's snapshot takes 5 us instead of 9 (in-memory SQLite).
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._terms: OrderedDict[tuple[int, str], Terms] = OrderedDict()

    def get(self, version: int, team: str) -> Terms | None:
        return self._terms.get((version, team))

    def put(self, version: int, team: str, terms: Terms) -> None:
        self._terms[version, team] = terms
        if len(self._terms) > self._max_entries:
            self._terms.popitem(last=False)


_cache = TermsCache(max_entries=16_384)

# `_terms` reads the columns by their names. ?1: the moment in ms, ?2: the team.
_TERMS_SQL = f"""\
SELECT plan, tier_override, tier_override_until_ms, overage, team_overage, coalesce(payment_method, 0),
    coalesce(earned_tier, 0), {IN_FORCE} AS catalog,
    (SELECT sum(iif(until_ms > ?1 AND from_ms <= ?1, amount_nanousd, 0)) FROM cap_adjustments
        WHERE cap_adjustments.team = teams.team) AS raised_nanousd,
    EXISTS (SELECT 1 FROM budgets WHERE budgets.team = teams.team) AS has_budgets
FROM teams LEFT JOIN billing USING (team) WHERE teams.team = ?2
"""


def terms_of(conn: sqlite3.Connection, team: str, at_ms: int, *, version: int | None = None) -> Terms:
    """Return the terms of an existing team.

    Args:
        version: of the table `terms`, read in this transaction; terms that do not depend on the moment are cached by
            it. None: read them.
    """
    cached = None if version is None else _cache.get(version, team)
    if cached is not None:
        return cached
    row = conn.execute(_TERMS_SQL, (at_ms, team)).fetchone()
    _, _, override_until_ms, *_, raised_nanousd, _ = row
    terms = _terms(row, None if override_until_ms is None else at_ms)
    if version is not None and override_until_ms is None and raised_nanousd is None:
        _cache.put(version, team, terms)
    return terms


@lru_cache(maxsize=4096)
def _terms(row: tuple[Any, ...], at_ms: int | None) -> Terms:
    """Return the terms in a row of _TERMS_SQL; `at_ms` is needed only for an override that ends. Cached by the row,
    which few teams have to themselves."""
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
    """Return whether a team may choose pay-as-you-go: not if the operator set another overage, nor on a plan whose
    teams contact the operator."""
    return set_overage == "postpaid" or (set_overage is None and plan.overage != "contact")


def _overage(
    plan: Plan, set_overage: Overage | None, team_overage: Overage | None, tier: int, payment_method: bool
) -> tuple[Overage, str]:
    """Return the rule at zero credit and its source. A team's choice can only be stricter than `set_overage`."""
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
    """Replace the team's row, if it changes."""
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
    """Return the sum of paid grants and paid statements, less withdrawals and voids of paid grants (R2)."""
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
    """Raise the earned tier if the team's money, or its payment method, is enough. It never falls by itself."""
    row = read_billing(conn, team)
    tier = catalog_in_force(conn).earned_tier(qualifying_nanousd(conn, team), payment_method=row.payment_method)
    if tier > row.earned_tier:
        write_billing(conn, team, replace(row, earned_tier=tier), actor=actor, now_ms=now_ms)
