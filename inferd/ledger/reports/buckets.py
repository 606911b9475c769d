"""Usage and costs in buckets of time, grouped and filtered in the terms of OpenAI's usage API."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlite_utils import Database

from inferd.ledger.reports.usage import MOVEMENTS

GroupField = Literal["project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "line_item"]

BATCH_TIER = "batch"

_FIELDS: Mapping[GroupField, str] = {
    "project_id": "team || '/' || project",
    "user_id": "team || '/' || user",
    "api_key_id": "key_id",
    "model": "deployment",
    "batch": f"service_tier = '{BATCH_TIER}'",
    "service_tier": "service_tier",
    "line_item": "deployment",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Filter of requests.

    Attributes:
        team: None: all teams.
        projects: names, `NAME` or `TEAM/NAME`; empty: all..
        batch: True: only lines of batches, False: only other requests; None: both.
    """

    since_ms: int
    until_ms: int
    team: str | None = None
    projects: Sequence[str] = ()
    users: Sequence[str] = ()
    keys: Sequence[str] = ()
    models: Sequence[str] = ()
    batch: bool | None = None

    def where(self) -> tuple[str, list[object]]:
        """Return the SQL condition and its parameters."""
        conditions, parameters = ["admitted_at_ms >= ? AND admitted_at_ms < ?"], [self.since_ms, self.until_ms]
        values: list[object] = [*parameters]
        if self.team is not None:
            conditions.append("team = ?")
            values.append(self.team)
        for columns, wanted in (
            (("project", _FIELDS["project_id"]), self.projects),
            (("user", _FIELDS["user_id"]), self.users),
            (("key_id",), self.keys),
            (("deployment",), self.models),
        ):
            if wanted:
                places = ", ".join("?" * len(wanted))
                conditions.append("(" + " OR ".join(f"{column} IN ({places})" for column in columns) + ")")
                values += [*wanted] * len(columns)
        if self.batch is not None:
            conditions.append(f"({_FIELDS['batch']}) = ?")
            values.append(int(self.batch))
        return " AND ".join(conditions), values


@dataclass(frozen=True, slots=True)
class BucketSums:
    """Sums of one group in one bucket.

    Attributes:
        groups: the fields that were grouped by, with their values.
    """

    start_ms: int
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_nanousd: int
    refunded_nanousd: int
    groups: Mapping[str, Any] = field(default_factory=dict)


def sum_by_bucket(
    conn: sqlite3.Connection, selection: Selection, width_ms: int, group_by: Sequence[GroupField] = ()
) -> list[BucketSums]:
    """Return the sums of each bucket and group with usage, in order. Buckets begin at multiples of `width_ms` (UTC).

    Usage that was rolled up counts at the beginning of its day.
    """
    where, parameters = selection.where()
    groups = "".join(f', {_FIELDS[name]} AS "{name}"' for name in group_by)
    keys = ", ".join(str(number) for number in range(1, len(group_by) + 2))
    rows = Database(conn, execute_plugins=False).query(
        f"SELECT admitted_at_ms / {width_ms} * {width_ms} AS start_ms{groups}, sum(requests) AS requests, "
        "sum(prompt_tokens) AS prompt_tokens, sum(cached_tokens) AS cached_tokens, "
        "sum(completion_tokens) AS completion_tokens, sum(cost_nanousd) AS cost_nanousd, "
        f"sum(refunded_nanousd) AS refunded_nanousd FROM {MOVEMENTS} WHERE {where} GROUP BY {keys} ORDER BY {keys}",
        parameters,
    )
    found = []
    for row in rows:
        named: dict[str, Any] = {name: row.pop(name) for name in group_by}
        if named.get("batch") is not None:
            named["batch"] = bool(named["batch"])
        found.append(BucketSums(**row, groups=named))
    return found
