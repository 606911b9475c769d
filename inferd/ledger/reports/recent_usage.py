"""What was used lately, second by second: what a server that starts seeds its rate limits with (BILLING R15)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from inferd.usage import Usage


@dataclass(frozen=True, slots=True)
class RecentUsage:
    """Requests of one team to one deployment, admitted within one second.

    Attributes:
        at_ms: when the second began, ms since 1970.
        usage: their sum.
    """

    at_ms: int
    team: str
    deployment: str
    is_free: bool
    num_requests: int
    usage: Usage


def recent_usage(conn: sqlite3.Connection, since_ms: int) -> Iterator[RecentUsage]:
    """In the order of time, without lines of batches, which no rate limit counts. Reads the index of admissions from
    there on, so it is no query for a request's path."""
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
