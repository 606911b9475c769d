"""What an operator can do with plans, tiers and the limits that come from them.

As in operations.py: in the caller's transaction, with `actor` and `now_ms`; a mistake is an error with its remedy.
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict

from inferd.errors import InvalidValueError, NotFoundError
from inferd.ledger.identity import teams
from inferd.ledger.operations.audit_log import logged, record
from inferd.ledger.terms.catalog import catalog_in_force, put_catalog
from inferd.ledger.terms.concurrency import ConcurrencyLimit, drop_concurrency, put_concurrency
from inferd.ledger.terms.limits import TeamLimits, team_limits
from inferd.ledger.terms.terms import raise_earned_tier
from inferd.plans import Catalog
from inferd.subjects import project_subject, user_subject

_MAX_CONCURRENCY = 1_000_000


def apply_plans(conn: sqlite3.Connection, catalog: Catalog, *, actor: str, now_ms: int) -> bool:
    """Put plans, tiers and alert policy in force, from the next request on; False if they were already. Tiers that cost
    less now are earned at once.

    Raises:
        ConfigError: a team is on a plan that they lack.
    """
    before = catalog_in_force(conn)
    if not put_catalog(conn, catalog, actor=actor, now_ms=now_ms):
        return False
    plans = sorted({*before.plans, *catalog.plans})
    changed = {
        "plans": [name for name in plans if before.plans.get(name) != catalog.plans.get(name)],
        "tiers": [tier.number for tier in catalog.tiers if tier != before.tiers[tier.number]],
        "alerts": None if catalog.alerts == before.alerts else asdict(catalog.alerts),
    }
    record(conn, "plans.apply", team=None, details=changed, actor=actor, now_ms=now_ms)
    for (team,) in conn.execute("SELECT team FROM teams ORDER BY team").fetchall():
        raise_earned_tier(conn, team, actor=actor, now_ms=now_ms)
    return True


def show_plans(conn: sqlite3.Connection) -> Catalog:
    """The plans and tiers in force."""
    return catalog_in_force(conn)


@logged("projects.set")
def set_project_concurrency(
    conn: sqlite3.Connection, team: str, project: str, max_requests: int | None, *, actor: str, now_ms: int
) -> TeamLimits:
    """How many requests of a project may be under way at once; None: what the plan says (R10)."""
    teams.find_team(conn, team)
    if teams.find_project(conn, team, project) is None:
        raise NotFoundError(f"team {team!r} has no project {project!r}")
    _set_concurrency(conn, team, project_subject(team, project), max_requests, actor, now_ms)
    return team_limits(conn, team, now_ms, project=project)


@logged("users.set")
def set_user_concurrency(
    conn: sqlite3.Connection, team: str, user: str, max_requests: int | None, *, actor: str, now_ms: int
) -> TeamLimits:
    """How many requests of a user may be under way at once; None: what the plan says (R10)."""
    teams.find_team(conn, team)
    if teams.find_user(conn, team, user) is None:
        raise NotFoundError(f"team {team!r} has no user {user!r}")
    _set_concurrency(conn, team, user_subject(team, user), max_requests, actor, now_ms)
    return team_limits(conn, team, now_ms, user=user)


def _set_concurrency(
    conn: sqlite3.Connection, team: str, scope: str, max_requests: int | None, actor: str, now_ms: int
) -> None:
    if max_requests is None:
        drop_concurrency(conn, scope)
        return
    if not 1 <= max_requests <= _MAX_CONCURRENCY:
        raise InvalidValueError(f"a number of requests at once is 1 to {_MAX_CONCURRENCY}, not {max_requests}")
    put_concurrency(conn, ConcurrencyLimit(scope, team, max_requests, now_ms, actor))
