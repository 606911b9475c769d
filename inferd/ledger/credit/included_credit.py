"""Credit that a plan includes (BILLING R3): a promotional grant, made by the first hold of each period.

Until that hold the grant is *due*: it counts as available credit, but has no row. A team gets at most one for each plan
and period, by `grants.origin`. The period goes by the clock of expiry, so that a doubtful clock gives nothing twice.
"""

from __future__ import annotations

import sqlite3

from inferd.instants import DAY_MS
from inferd.ledger.credit.accounts import BY_RULE
from inferd.ledger.credit.grants import Grant
from inferd.ledger.terms.periods import periods_of
from inferd.plans import Plan


def due_grant(conn: sqlite3.Connection, team: str, plan: Plan, at_ms: int, now_ms: int) -> Grant | None:
    """Return the included grant that the team has not been given yet, for `add_grant`; None if there is none.

    Args:
        at_ms: by the clock of expiry.
        now_ms: when the grant is made.
    """
    if not plan.included_nanousd:
        return None
    period = "once" if plan.included_every == "once" else periods_of(at_ms)[0]
    origin = f"included:{plan.name}:{period}"
    given = conn.execute("SELECT 1 FROM grants WHERE team = ? AND origin = ?", (team, origin)).fetchone()
    if given is not None:
        return None
    return Grant(
        team,
        "promotional",
        plan.included_nanousd,
        now_ms,
        BY_RULE,
        expires_at_ms=None if plan.included_valid_days is None else at_ms + plan.included_valid_days * DAY_MS,
        note=f"credit included in plan {plan.name}",
        origin=origin,
        remaining_nanousd=plan.included_nanousd,
    )
