"""Credit that comes with a plan (BILLING R3): a promotional grant, made by the first hold of each period.

Until then it is due, and counts as if it were there. At most one for each plan, team and period: `grants.origin`. The
period goes by the clock of expiry, so that a clock that is doubted gives nothing twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from inferd.ledger.accounts import BY_RULE
from inferd.ledger.grants import DEFAULT_PRIORITY, OpenGrant, add_grant
from inferd.ledger.periods import periods_of
from inferd.plans import Plan

_DAY_MS = 86_400_000


def with_due(
    conn: sqlite3.Connection, team: str, plan: Plan, grants: Sequence[OpenGrant], at_ms: int
) -> Sequence[OpenGrant]:
    """The team's open grants, and the one that is due, if any.

    Args:
        at_ms: by the clock of expiry.
    """
    if not _is_due(conn, team, plan, at_ms):
        return grants
    due = OpenGrant(0, "promotional", DEFAULT_PRIORITY, plan.included_nanousd, _expires_at_ms(plan, at_ms))
    return [*grants, due]


def give(conn: sqlite3.Connection, team: str, plan: Plan, at_ms: int, now_ms: int) -> bool:
    """Make the grant that is due; False if none is."""
    if not _is_due(conn, team, plan, at_ms):
        return False
    add_grant(
        conn,
        team,
        plan.included_nanousd,
        "promotional",
        actor=BY_RULE,
        now_ms=now_ms,
        expires_at_ms=_expires_at_ms(plan, at_ms),
        note=f"credit included in plan {plan.name}",
        origin=_origin(plan, at_ms),
    )
    return True


def _is_due(conn: sqlite3.Connection, team: str, plan: Plan, at_ms: int) -> bool:
    if not plan.included_nanousd:
        return False
    given = conn.execute("SELECT 1 FROM grants WHERE team = ? AND origin = ?", (team, _origin(plan, at_ms))).fetchone()
    return given is None


def _origin(plan: Plan, at_ms: int) -> str:
    period = "once" if plan.included_every == "once" else periods_of(at_ms)[0]
    return f"included:{plan.name}:{period}"


def _expires_at_ms(plan: Plan, at_ms: int) -> int | None:
    return None if plan.included_valid_days is None else at_ms + plan.included_valid_days * _DAY_MS
