"""What a caller may know about itself: team, project, tier, limits, credit. Sums that are kept, no scan of usage."""

from __future__ import annotations

import sqlite3
from typing import Any

from inferd.instants import format_instant
from inferd.ledger.credit.balance import credit_of
from inferd.ledger.identity.keys import Caller, find_key
from inferd.ledger.terms.caps import caps_of_subjects
from inferd.ledger.terms.limits import team_limits
from inferd.ledger.terms.terms import terms_of
from inferd.subjects import subjects_of


def key_status(conn: sqlite3.Connection, caller: Caller, *, now_ms: int) -> dict[str, Any]:
    """The body of `GET /v1/key`: `limits` has every cap that the caller's next request must keep."""
    key = find_key(conn, caller.key_id)
    terms = terms_of(conn, caller.team, now_ms)
    rates = team_limits(conn, caller.team, now_ms, project=caller.project, user=caller.user)
    subjects = subjects_of(caller.team, caller.project, caller.user, caller.key_id)
    return {
        "object": "key",
        "id": caller.key_id,
        "name": key.label,
        "team": caller.team,
        "project": caller.project,
        "user": caller.user,
        "scopes": list(caller.scopes),
        "models": None if caller.models is None else list(caller.models),
        "expires_at": None if key.expires_at_ms is None else format_instant(key.expires_at_ms),
        "plan": terms.plan.name,
        "tier": terms.tier,
        "tier_source": terms.tier_source,
        "rates": [row.to_json() for row in rates.rows()],
        "credit": credit_of(conn, caller.team, now_ms).to_json(),
        "limits": [cap.to_json() for cap in caps_of_subjects(conn, caller.team, terms, subjects, now_ms)],
    }
