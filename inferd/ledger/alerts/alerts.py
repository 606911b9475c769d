"""Alerts (BILLING R7): rows written in the transaction that crosses a line, once per line and period.

Kind `threshold`: what a scope used in a period reached a share of a cap of money, tokens or compute time. Kind
`low_balance`: a team's unspent credit fell below a share of its last grant (source `credit`), or a request was refused
for lack of it (source `refusal`); its period is that grant. Deliveries of alerts have rows of their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.rows import insert
from inferd.ledger.terms.caps import Cap
from inferd.plans import AlertPolicy, Unit
from inferd.subjects import team_subject
from inferd.units import Amounts, display_amount

AlertKind = Literal["threshold", "low_balance"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        alert_id: 1, 2, 3, ...; 0 before it is stored.
        scope: as in counters, such as `project:acme/website`.
        source: the cap's (`plan`, `tier`, `budget`, ...), `credit` or `refusal`.
        period: the cap's, such as `2026-11`; `grant 7` of a low balance, `no grant` of a team that never had one.
        unit: of both amounts; those of `usd` are in nano-USD.
        limit_amount: the cap, or the last grant; 0 without a grant.
        value_amount: the amount used, or the credit left.
    """

    alert_id: int
    kind: AlertKind
    team: str
    scope: str
    source: str
    period: str
    unit: Unit
    threshold_percent: int
    limit_amount: int
    value_amount: int
    at_ms: int


ALERT_COLUMNS = ", ".join(Alert.__dataclass_fields__)


def all_alerts(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Alert]:
    """Return a page of the alerts of one team or of all, oldest first."""
    rows = conn.execute(
        f"SELECT {ALERT_COLUMNS} FROM alerts WHERE (?1 IS NULL OR team = ?1) AND alert_id > coalesce(?2, 0) "
        "ORDER BY alert_id LIMIT ?3",
        (team, page.after, page.limit),
    )
    return [Alert(*row) for row in rows]


def alert_text(alert: Alert) -> str:
    """Return one sentence for a person."""
    value, limit = (display_amount(alert.unit, amount) for amount in (alert.value_amount, alert.limit_amount))
    if alert.source == "refusal":
        return f"team {alert.team} has {value} of credit left, which was too little for a request that was refused"
    if alert.kind == "low_balance":
        return (
            f"team {alert.team} has {value} of credit left, "
            f"less than {alert.threshold_percent} % of its last grant ({limit})"
        )
    used = {"usd": "spent", "tokens": "used", "compute_ms": "computed for"}[alert.unit]
    if alert.value_amount * 100 < alert.threshold_percent * alert.limit_amount:
        return (
            f"{alert.scope} has {used} {value} of its cap of {limit} in {alert.period} ({alert.source}), "
            "which leaves too little for a request that was refused"
        )
    return (
        f"{alert.scope} has {used} {value} in {alert.period}, "
        f"{alert.threshold_percent} % or more of its cap of {limit} ({alert.source})"
    )


def alert_spending(
    conn: sqlite3.Connection, team: str, caps: Sequence[Cap], policy: AlertPolicy, *, now_ms: int
) -> None:
    """Write the thresholds of these caps that are newly reached; after each change of posted spending or a budget."""
    for cap in caps:
        for percent in policy.thresholds_percent:
            if cap.spend.posted > 0 and cap.spend.posted * 100 >= percent * cap.limit:
                _add_threshold(conn, team, cap, percent, now_ms)


def alert_exhausted(conn: sqlite3.Connection, team: str, caps: Sequence[Cap], needed: Amounts, now_ms: int) -> None:
    """Write the caps that leave too little for a request even if every open hold were void, as their 100 %."""
    for cap in caps:
        if needed.of(cap.unit) > cap.left_without_holds:
            _add_threshold(conn, team, cap, 100, now_ms)


def _add_threshold(conn: sqlite3.Connection, team: str, cap: Cap, percent: int, now_ms: int) -> None:
    alert = Alert(
        alert_id=0,
        kind="threshold",
        team=team,
        scope=cap.scope,
        source=cap.source,
        period=cap.period,
        unit=cap.unit,
        threshold_percent=percent,
        limit_amount=cap.limit,
        value_amount=cap.spend.posted,
        at_ms=now_ms,
    )
    _add(conn, alert)


def alert_low_balance(
    conn: sqlite3.Connection, team: str, left_nanousd: int, policy: AlertPolicy, *, now_ms: int
) -> None:
    """Write that the unspent credit is low, once a grant."""
    grant_id, amount_nanousd = _last_grant(conn, team)
    percent = policy.low_balance_percent
    if left_nanousd * 100 < percent * amount_nanousd:
        alert = Alert(
            alert_id=0,
            kind="low_balance",
            team=team,
            scope=team_subject(team),
            source="credit",
            period=f"grant {grant_id}",
            unit="usd",
            threshold_percent=percent,
            limit_amount=amount_nanousd,
            value_amount=left_nanousd,
            at_ms=now_ms,
        )
        _add(conn, alert)


def alert_no_credit(
    conn: sqlite3.Connection, team: str, left_nanousd: int, policy: AlertPolicy, *, now_ms: int
) -> None:
    """Write that a request was refused for lack of credit, once a grant, if the rest is low or nothing."""
    grant_id, amount_nanousd = _last_grant(conn, team)
    percent = policy.low_balance_percent
    if percent and (left_nanousd == 0 or left_nanousd * 100 < percent * amount_nanousd):
        alert = Alert(
            alert_id=0,
            kind="low_balance",
            team=team,
            scope=team_subject(team),
            source="refusal",
            period="no grant" if grant_id is None else f"grant {grant_id}",
            unit="usd",
            threshold_percent=percent,
            limit_amount=amount_nanousd,
            value_amount=left_nanousd,
            at_ms=now_ms,
        )
        _add(conn, alert)


def _last_grant(conn: sqlite3.Connection, team: str) -> tuple[int | None, int]:
    """Return id and amount of a team's last grant; (None, 0) without one."""
    last: tuple[int, int] | None = conn.execute(
        "SELECT grant_id, amount_nanousd FROM grants WHERE team = ? ORDER BY grant_id DESC LIMIT 1", (team,)
    ).fetchone()
    return (None, 0) if last is None else last


def _add(conn: sqlite3.Connection, alert: Alert) -> None:
    """Insert an alert, unless there is one of its line and period."""
    known = conn.execute(
        "SELECT 1 FROM alerts "
        "WHERE kind = ? AND scope = ? AND source = ? AND period = ? AND unit = ? AND threshold_percent = ?",
        (alert.kind, alert.scope, alert.source, alert.period, alert.unit, alert.threshold_percent),
    ).fetchone()
    if known is None:
        (alert_id,) = conn.execute("SELECT coalesce(max(alert_id), 0) + 1 FROM alerts").fetchone()
        insert(conn, "alerts", asdict(alert) | {"alert_id": alert_id})
