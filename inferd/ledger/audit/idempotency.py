"""The audit's check of idempotency keys (BILLING R22): what was said once is remembered for ever."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit.finding import Finding

# Action in the log -> verb of the stored answer.
_VERBS = {
    "credits.grant": "grant",
    "credits.refund": "refund",
    "credits.withdraw": "withdraw",
    "credits.void": "void",
    "statements.pay": "pay",
    "budgets.raise": "raise",
}


def lost_answers(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Every key that the log names has its stored answer; without it, the same call would move money again."""
    kept = set(conn.execute("SELECT team, verb, key FROM idempotency").fetchall())
    marks = ", ".join("?" * len(_VERBS))
    rows = conn.execute(f"SELECT team, action, details FROM log WHERE action IN ({marks}) ORDER BY seq", tuple(_VERBS))
    for team, action, text in rows:
        key = json.loads(text).get("idempotency_key")
        if key is not None and (team, _VERBS[action], key) not in kept:
            yield Finding(
                "idempotency", f"{team}/{_VERBS[action]}/{key}", "it is missing: the log says that it was used"
            )
