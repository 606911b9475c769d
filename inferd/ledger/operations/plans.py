"""Operations on plans, tiers and the alert policy (BILLING R4)."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict

from inferd.ledger.operations import audit_log
from inferd.ledger.operations.audit_log import Author
from inferd.ledger.terms.catalog import catalog_in_force, put_catalog
from inferd.ledger.terms.terms import raise_earned_tier
from inferd.plans import Catalog


def apply_plans(conn: sqlite3.Connection, catalog: Catalog, *, by: Author) -> bool:
    """Put plans, tiers and alert policy in force, from the next request on. Tiers that cost less now are earned.

    Returns:
        Whether anything changed.

    Raises:
        ConfigError: a team is on a plan that the catalog lacks.
    """
    before = catalog_in_force(conn)
    if not put_catalog(conn, catalog, actor=by.actor, now_ms=by.now_ms):
        return False
    plans = sorted({*before.plans, *catalog.plans})
    details = {
        "plans": [name for name in plans if before.plans.get(name) != catalog.plans.get(name)],
        "tiers": [tier.number for tier in catalog.tiers if tier != before.tiers[tier.number]],
        "alerts": None if catalog.alerts == before.alerts else asdict(catalog.alerts),
    }
    audit_log.record(conn, "plans.apply", None, details, by)
    for (team,) in conn.execute("SELECT team FROM teams ORDER BY team").fetchall():
        raise_earned_tier(conn, team, actor=by.actor, now_ms=by.now_ms)
    return True


def show_plans(conn: sqlite3.Connection) -> Catalog:
    """Return the plans and tiers in force."""
    return catalog_in_force(conn)
