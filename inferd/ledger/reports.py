"""Usage reports: sums of the usage rows, by the time of admission, UTC and half-open."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from sqlite_utils import Database

from inferd.ledger.teams import find_team
from inferd.money import format_usd

GroupBy = Literal["model", "day", "key", "team", "request"]

_GROUPS: dict[GroupBy, str] = {
    "model": "deployment",
    "day": "strftime('%Y-%m-%d', admitted_at_ms / 1000, 'unixepoch')",
    "key": "key_id",
    "team": "team",
    "request": "request_id",
}
GROUPS = tuple(_GROUPS)
_SUMS = (
    "count(*) AS requests, coalesce(sum(prompt_tokens), 0) AS prompt_tokens, "
    "coalesce(sum(cached_tokens), 0) AS cached_tokens, coalesce(sum(completion_tokens), 0) AS completion_tokens, "
    "coalesce(sum(compute_ms), 0) AS compute_ms, coalesce(sum(cost_nanousd), 0) AS cost_nanousd"
)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The answer of `inferd usage --json`.

    Attributes:
        rows: each with its group (the field is named for it: `model`, `day`, `key`, `team` or `request`), `requests`,
            `prompt_tokens` (cached ones included), `cached_tokens`, `completion_tokens`, `compute_ms`, `cost_usd`
            (decimal string), and `status` when by request.
        total: the same sums over all of them.
    """

    rows: tuple[dict[str, Any], ...]
    total: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"rows": list(self.rows), "total": self.total}


def usage_report(
    conn: sqlite3.Connection,
    by: GroupBy = "model",
    *,
    team: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> UsageReport:
    """Sum up the requests admitted in [since_ms, until_ms), free and failed ones included.

    Raises:
        NotFoundError: there is no such team.
    """
    if team is not None:
        find_team(conn, team)
    filters = {"team = ?": team, "admitted_at_ms >= ?": since_ms, "admitted_at_ms < ?": until_ms}
    chosen = {condition: value for condition, value in filters.items() if value is not None}
    where = f"WHERE {' AND '.join(chosen)}" if chosen else ""
    parameters = list(chosen.values())
    db = Database(conn, execute_plugins=False)
    status = ", max(status) AS status" if by == "request" else ""
    order = "min(admitted_at_ms), 1" if by == "request" else "1"
    rows = db.query(
        f'SELECT {_GROUPS[by]} AS "{by}", {_SUMS}{status} FROM usage {where} GROUP BY 1 ORDER BY {order}', parameters
    )
    (total,) = db.query(f"SELECT {_SUMS} FROM usage {where}", parameters)
    return UsageReport(rows=tuple(_shown(row) for row in rows), total=_shown(total))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its cost as a decimal string, in place."""
    return {
        ("cost_usd" if name == "cost_nanousd" else name): (format_usd(value) if name == "cost_nanousd" else value)
        for name, value in row.items()
    }
