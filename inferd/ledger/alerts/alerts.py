"""Alerts (BILLING R7): rows written in the transaction that crosses a line, once per line and period.

Kind `threshold`: what a scope has spent in a period reached a share of a cap. Kind `low_balance`: a team's unspent
credit fell below a share of its last grant (source `credit`), or a request was refused for lack of it (source
`refusal`); its period is that grant. Others deliver the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.rows import insert
from inferd.ledger.terms.caps import Cap
from inferd.plans import AlertPolicy
from inferd.subjects import team_subject

AlertKind = Literal["threshold", "low_balance"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One row of the outbox.

    Attributes:
        scope: as in counters, such as `project:acme/website`.
        source: the cap's (`plan`, `tier`, `budget`, `team_budget`), `credit` or `refusal`.
        period: `2026-11`, `2026`, `lifetime`; `grant 7` of a low balance, `no grant` of a team that never had one.
        limit_nanousd: the cap, or the last grant; 0 if there was none.
        value_nanousd: what was spent, or is left.
    """

    alert_id: int
    kind: AlertKind
    team: str
    scope: str
    source: str
    period: str
    threshold_percent: int
    limit_nanousd: int
    value_nanousd: int
    at_ms: int


_COLUMNS = "alert_id, kind, team, scope, source, period, threshold_percent, limit_nanousd, value_nanousd, at_ms"


def all_alerts(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Alert]:
    """Of one team or of all, oldest first."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM alerts WHERE (?1 IS NULL OR team = ?1) AND alert_id > coalesce(?2, 0) "
        "ORDER BY alert_id LIMIT ?3",
        (team, page.after, page.limit),
    )
    return [Alert(*row) for row in rows]


def alert_spending(
    conn: sqlite3.Connection, team: str, caps: Sequence[Cap], policy: AlertPolicy, *, now_ms: int
) -> None:
    """Write down which thresholds of these caps are reached and were not before. Called after every change of what was
    posted, and of a budget."""
    for cap in caps:
        posted_nanousd, limit_nanousd = cap.spend.posted_nanousd, cap.limit_nanousd
        for percent in policy.thresholds_percent:
            if posted_nanousd > 0 and posted_nanousd * 100 >= percent * limit_nanousd:
                _add(
                    conn,
                    Alert(
                        *(0, "threshold", team, cap.scope, cap.source, cap.period, percent),
                        *(limit_nanousd, posted_nanousd, now_ms),
                    ),
                )


def alert_exhausted(conn: sqlite3.Connection, team: str, caps: Sequence[Cap], needed_nanousd: int, now_ms: int) -> None:
    """Write down, as their 100 %, which caps do not leave what a request needs, were every open hold void."""
    for cap in caps:
        if needed_nanousd > cap.left_without_holds_nanousd:
            _add(
                conn,
                Alert(
                    *(0, "threshold", team, cap.scope, cap.source, cap.period, 100),
                    *(cap.limit_nanousd, cap.spend.posted_nanousd, now_ms),
                ),
            )


def alert_low_balance(
    conn: sqlite3.Connection, team: str, left_nanousd: int, policy: AlertPolicy, *, now_ms: int
) -> None:
    """Write down that the credit left is low, if it is and no such alert was written since the last grant."""
    grant_id, amount_nanousd = _last_grant(conn, team)
    if left_nanousd * 100 < policy.low_balance_percent * amount_nanousd:
        _add(
            conn,
            Alert(
                *(0, "low_balance", team, team_subject(team), "credit", f"grant {grant_id}"),
                *(policy.low_balance_percent, amount_nanousd, left_nanousd, now_ms),
            ),
        )


def alert_no_credit(
    conn: sqlite3.Connection, team: str, left_nanousd: int, policy: AlertPolicy, *, now_ms: int
) -> None:
    """Write down that a request was refused for lack of credit, once a grant, if what is left is low or nothing."""
    grant_id, amount_nanousd = _last_grant(conn, team)
    percent = policy.low_balance_percent
    if percent and (left_nanousd == 0 or left_nanousd * 100 < percent * amount_nanousd):
        period = "no grant" if grant_id is None else f"grant {grant_id}"
        _add(
            conn,
            Alert(
                *(0, "low_balance", team, team_subject(team), "refusal", period),
                *(percent, amount_nanousd, left_nanousd, now_ms),
            ),
        )


def _last_grant(conn: sqlite3.Connection, team: str) -> tuple[int | None, int]:
    """The id and the amount of a team's last grant; (None, 0) if there was none."""
    last: tuple[int, int] | None = conn.execute(
        "SELECT grant_id, amount_nanousd FROM grants WHERE team = ? ORDER BY grant_id DESC LIMIT 1", (team,)
    ).fetchone()
    return (None, 0) if last is None else last


def _add(conn: sqlite3.Connection, alert: Alert) -> None:
    known = conn.execute(
        "SELECT 1 FROM alerts WHERE kind = ? AND scope = ? AND source = ? AND period = ? AND threshold_percent = ?",
        (alert.kind, alert.scope, alert.source, alert.period, alert.threshold_percent),
    ).fetchone()
    if known is not None:
        return
    values = {
        "alert_id": conn.execute("SELECT coalesce(max(alert_id), 0) + 1 FROM alerts").fetchone()[0],
        "kind": alert.kind,
        "team": alert.team,
        "scope": alert.scope,
        "source": alert.source,
        "period": alert.period,
        "threshold_percent": alert.threshold_percent,
        "limit_nanousd": alert.limit_nanousd,
        "value_nanousd": alert.value_nanousd,
        "at_ms": alert.at_ms,
    }
    insert(conn, "alerts", values)
