"""Credit that comes with a plan (BILLING R3): a promotional grant, made by the first hold of each period.

Until then it is due, and counts as if it were there. At most one for each plan, team and period: `grants.origin`. The
period goes by the clock of expiry, so that a clock that is doubted gives nothing twice.
"""

from __future__ import annotations

import sqlite3

from inferd.ledger.credit.accounts import BY_RULE
from inferd.ledger.credit.grants import DEFAULT_PRIORITY, OpenGrant, add_grant
from inferd.ledger.terms.periods import periods_of
from inferd.plans import Plan

_DAY_MS = 86_400_000


def is_due(conn: sqlite3.Connection, team: str, plan: Plan, at_ms: int) -> bool:
    """Whether the team is to have a grant that it has not been given. `at_ms`: by the clock of expiry."""
    if not plan.included_nanousd:
        return False
    given = conn.execute("SELECT 1 FROM grants WHERE team = ? AND origin = ?", (team, _origin(plan, at_ms))).fetchone()
    return given is None


def due(plan: Plan, at_ms: int) -> OpenGrant:
    """The grant as it would be."""
    return OpenGrant(0, "promotional", DEFAULT_PRIORITY, plan.included_nanousd, _expires_at_ms(plan, at_ms))


def give(conn: sqlite3.Connection, team: str, plan: Plan, at_ms: int, now_ms: int) -> None:
    """Make the grant, which is due."""
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


def _origin(plan: Plan, at_ms: int) -> str:
    period = "once" if plan.included_every == "once" else periods_of(at_ms)[0]
    return f"included:{plan.name}:{period}"


def _expires_at_ms(plan: Plan, at_ms: int) -> int | None:
    return None if plan.included_valid_days is None else at_ms + plan.included_valid_days * _DAY_MS
