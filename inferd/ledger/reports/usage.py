"""Usage reports: sums of usage rows in half-open spans of the time of admission, UTC.

Requests whose detail was rolled up count as sums of their day. A refund counts where its request does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from inferd.ledger.identity.teams import find_team
from inferd.money import format_usd
from inferd.usage import GroupBy, Usage

_GROUPS: dict[GroupBy, str] = {
    "model": "deployment",
    "day": "strftime('%Y-%m-%d', admitted_at_ms / 1000, 'unixepoch')",
    "project": "team || '/' || project",
    "user": "team || '/' || user",
    "key": "key_id",
    "team": "team",
    "service_tier": "service_tier",
    "request": "request_id",
}
GROUPS = tuple(_GROUPS)

_WHO = "admitted_at_ms, team, project, user, key_id, deployment, service_tier"
_COUNTS = "prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd"
_REFUNDS = f"SELECT {_WHO}, 0 AS requests, 0, 0, 0, 0, 0, amount_nanousd AS refunded_nanousd"
# SQL of the rows that reports add up: requests, rolled up or not, and refunds.
MOVEMENTS = (
    f"(SELECT {_WHO}, requests, {_COUNTS}, 0 AS refunded_nanousd FROM usage_sums UNION ALL {_REFUNDS} FROM refunds)"
)
# The same, with id and status of each request that was not rolled up.
_REQUESTS = (
    f"(SELECT {_WHO}, 1 AS requests, {_COUNTS}, 0 AS refunded_nanousd, request_id, status FROM usage "
    f"UNION ALL SELECT {_WHO.replace('admitted_at_ms', 'day_start_ms')}, requests, {_COUNTS}, 0, NULL, NULL "
    f"FROM usage_daily UNION ALL {_REFUNDS}, "
    "(SELECT request_id FROM usage WHERE usage.request_id = refunds.request_id), NULL FROM refunds)"
)
_SUMS = ", ".join(
    f"coalesce(sum({name}), 0) AS {name}" for name in ("requests", *_COUNTS.split(", "), "refunded_nanousd")
)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Sums of usage by group.

    Attributes:
        rows: each with its group (the field is named for it; a project or user is `TEAM/NAME`), `requests`,
            `prompt_tokens` (cached ones included), `cached_tokens`, `completion_tokens`, `compute_ms`, `cost_usd`,
            `refunded_usd` and `net_usd` (decimal strings), and `status` when by request. By request, all whose
            detail was rolled up are one row of request None.
        total: the same sums over all rows.
    """

    rows: tuple[dict[str, Any], ...]
    total: dict[str, Any]


def usage_report(
    conn: sqlite3.Connection,
    by: GroupBy = "model",
    *,
    team: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> UsageReport:
    """Return sums of the requests admitted in [since_ms, until_ms), free and failed ones included.

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
    by_request = by == "request"
    source, status = (_REQUESTS, ", max(status) AS status") if by_request else (MOVEMENTS, "")
    order = "min(admitted_at_ms), 1" if by_request else "1"
    rows = db.query(
        f'SELECT {_GROUPS[by]} AS "{by}", {_SUMS}{status} FROM {source} {where} GROUP BY 1 ORDER BY {order}', parameters
    )
    (total,) = db.query(f"SELECT {_SUMS} FROM {source} {where}", parameters)
    return UsageReport(rows=tuple(_shown(row) for row in rows), total=_shown(total))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with amounts as decimal strings; `status` stays last."""
    status = {name: row.pop(name) for name in ("status",) if name in row}
    cost_nanousd, refunded_nanousd = row.pop("cost_nanousd"), row.pop("refunded_nanousd")
    amounts = {
        "cost_usd": format_usd(cost_nanousd),
        "refunded_usd": format_usd(refunded_nanousd),
        "net_usd": format_usd(cost_nanousd - refunded_nanousd),
    }
    return row | amounts | status


@dataclass(frozen=True, slots=True)
class RecentUsage:
    """Requests of one team to one deployment that were admitted within one second.

    Attributes:
        at_ms: the beginning of the second, ms since 1970.
        usage: the sum of the requests.
    """

    at_ms: int
    team: str
    deployment: str
    is_free: bool
    num_requests: int
    usage: Usage


def recent_usage(conn: sqlite3.Connection, since_ms: int) -> Iterator[RecentUsage]:
    """Yield the usage of each second in order of time, without lines of batches, which no rate limit counts.

    A starting server seeds its rate limits with it (BILLING R15). It reads the index of admissions from `since_ms` on,
    which is too slow for the path of a request.
    """
    rows = conn.execute(
        "SELECT admitted_at_ms / 1000 AS second, team, deployment, input_picousd IS NULL AS is_free, count(*), "
        "sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens) FROM usage WHERE admitted_at_ms >= ? "
        "AND service_tier <> 'batch' GROUP BY second, team, deployment, is_free ORDER BY second",
        (since_ms,),
    )
    for second, team, deployment, is_free, num_requests, prompt, cached, completion in rows:
        yield RecentUsage(
            second * 1000, team, deployment, bool(is_free), num_requests, Usage(prompt, cached, completion)
        )
