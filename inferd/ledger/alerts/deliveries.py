"""Which alert was delivered to which webhook: at least once each, for about a day, then a dead letter.

A row of `deliveries` is waiting (`next_at_ms`), delivered or dead. Rows are made here, not where alerts are made, so
that the ledger's own transactions need not know of webhooks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from inferd.instants import DAY_MS, format_instant
from inferd.ledger.alerts.alerts import Alert, all_alerts
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.store import Store
from inferd.money import display_usd, format_usd

_FIRST_DELAY_MS = 5_000
_DELAY_FACTOR = 3
_LONGEST_DELAY_MS = 6 * 3_600_000
# 5 s, 15 s, 45 s, ... 3 h, then 6 h three times: 22.5 hours from the first attempt to the last.
MAX_ATTEMPTS = 12
# A webhook that is new is not told what is older than this.
_NEWS_MS = DAY_MS


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on its way to one webhook; the state is one of `waiting`, `delivered`, `dead`."""

    alert_id: int
    url: str
    attempts: int
    next_at_ms: int | None
    delivered_at_ms: int | None
    dead_at_ms: int | None
    last_error: str | None

    @property
    def state(self) -> str:
        if self.delivered_at_ms is not None:
            return "delivered"
        return "waiting" if self.dead_at_ms is None else "dead"

    def to_json(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "state": self.state,
            "attempts": self.attempts,
            "next_at": None if self.next_at_ms is None else format_instant(self.next_at_ms),
            "last_error": self.last_error,
        }


_COLUMNS = "alert_id, url, attempts, next_at_ms, delivered_at_ms, dead_at_ms, last_error"
_ALERT = "alert_id, kind, team, scope, source, period, threshold_percent, limit_nanousd, value_nanousd, at_ms"


@dataclass(frozen=True, slots=True)
class AlertState:
    """An alert, and what became of it."""

    alert: Alert
    deliveries: tuple[Delivery, ...]

    def to_json(self) -> dict[str, Any]:
        return {**alert_json(self.alert), "deliveries": [delivery.to_json() for delivery in self.deliveries]}


def alert_json(alert: Alert) -> dict[str, Any]:
    """An alert as `inferd alerts --json` and webhooks show it; amounts are decimal strings of USD."""
    return {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "team": alert.team,
        "scope": alert.scope,
        "source": alert.source,
        "period": alert.period,
        "threshold_percent": alert.threshold_percent,
        "limit_usd": format_usd(alert.limit_nanousd),
        "value_usd": format_usd(alert.value_nanousd),
        "at": format_instant(alert.at_ms),
        "text": alert_text(alert),
    }


def alert_text(alert: Alert) -> str:
    """One sentence for a person."""
    value, limit = display_usd(alert.value_nanousd), display_usd(alert.limit_nanousd)
    if alert.source == "refusal":
        return f"team {alert.team} has {value} of credit left, which was too little for a request that was refused"
    if alert.kind == "low_balance":
        return (
            f"team {alert.team} has {value} of credit left, "
            f"less than {alert.threshold_percent} % of its last grant ({limit})"
        )
    if alert.value_nanousd * 100 < alert.threshold_percent * alert.limit_nanousd:
        return (
            f"{alert.scope} has spent {value} of its cap of {limit} in {alert.period} ({alert.source}), "
            "which leaves too little for a request that was refused"
        )
    return (
        f"{alert.scope} has spent {value} in {alert.period}, "
        f"{alert.threshold_percent} % or more of its cap of {limit} ({alert.source})"
    )


def alert_states(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[AlertState]:
    """Of one team or of all, oldest first."""
    of_alert = f"SELECT {_COLUMNS} FROM deliveries WHERE alert_id = ? ORDER BY url"
    return [
        AlertState(alert, tuple(Delivery(*row) for row in conn.execute(of_alert, (alert.alert_id,))))
        for alert in all_alerts(conn, team, page)
    ]


class Outbox:
    """What there is to tell, on a reading connection of its own; belongs to one thread."""

    def __init__(self, store: Store) -> None:
        self._conn = store.connect()

    def close(self) -> None:
        self._conn.close()

    def newest_id(self) -> int:
        """Of the newest alert; 0 if there is none."""
        newest: int = self._conn.execute("SELECT coalesce(max(alert_id), 0) FROM alerts").fetchone()[0]
        return newest

    def alerts_after(self, alert_id: int) -> list[Alert]:
        """Those that are newer, oldest first."""
        rows = self._conn.execute(f"SELECT {_ALERT} FROM alerts WHERE alert_id > ? ORDER BY alert_id", (alert_id,))
        return [Alert(*row) for row in rows]

    def due(self, urls: Sequence[str], now_ms: int) -> list[tuple[Delivery, Alert]]:
        """What is to be sent now to one of these webhooks, the longest waiting first; at most 100."""
        marks = ", ".join("?" * len(urls))
        rows = self._conn.execute(
            f"SELECT {_COLUMNS} FROM deliveries WHERE next_at_ms <= ? AND url IN ({marks}) "
            "ORDER BY next_at_ms, alert_id LIMIT 100",
            (now_ms, *urls),
        ).fetchall()
        one = f"SELECT {_ALERT} FROM alerts WHERE alert_id = ?"
        return [(Delivery(*row), Alert(*self._conn.execute(one, (row[0],)).fetchone())) for row in rows]


@dataclass(frozen=True, slots=True)
class PlanDeliveries:
    """Give each alert a row for each of these webhooks. What is old when a webhook is new is dead from the start."""

    durable: ClassVar[bool] = True
    urls: tuple[str, ...]
    now_ms: int

    def apply(self, conn: sqlite3.Connection) -> None:
        for url in self.urls:
            new = not conn.execute("SELECT EXISTS (SELECT 1 FROM deliveries WHERE url = ?)", (url,)).fetchone()[0]
            oldest_ms = self.now_ms - _NEWS_MS if new else 0
            conn.execute(
                f"INSERT INTO deliveries ({_COLUMNS}) "
                "SELECT alert_id, ?1, 0, iif(at_ms >= ?2, ?3, NULL), NULL, iif(at_ms >= ?2, NULL, ?3), "
                "iif(at_ms >= ?2, NULL, 'older than this webhook') FROM alerts "
                "WHERE alert_id NOT IN (SELECT alert_id FROM deliveries WHERE url = ?1)",
                (url, oldest_ms, self.now_ms),
            )


@dataclass(frozen=True, slots=True)
class RecordDelivery:
    """One attempt was made. `error` None: the webhook has it; else it is tried again later, or is dead."""

    durable: ClassVar[bool] = True
    alert_id: int
    url: str
    error: str | None
    now_ms: int

    def apply(self, conn: sqlite3.Connection) -> Delivery:
        where = "WHERE alert_id = ? AND url = ?"
        key = (self.alert_id, self.url)
        attempts: int = conn.execute(f"SELECT attempts + 1 FROM deliveries {where}", key).fetchone()[0]
        dead = self.error is not None and attempts >= MAX_ATTEMPTS
        next_at_ms = None if self.error is None or dead else self.now_ms + _delay_ms(attempts)
        conn.execute(
            "UPDATE deliveries SET attempts = ?, next_at_ms = ?, delivered_at_ms = ?, dead_at_ms = ?, last_error = ? "
            + where,
            (
                *(attempts, next_at_ms, self.now_ms if self.error is None else None, self.now_ms if dead else None),
                *(self.error, *key),
            ),
        )
        return Delivery(*conn.execute(f"SELECT {_COLUMNS} FROM deliveries {where}", key).fetchone())


def _delay_ms(attempts: int) -> int:
    grown_ms: int = _FIRST_DELAY_MS * _DELAY_FACTOR ** (attempts - 1)
    return min(grown_ms, _LONGEST_DELAY_MS)
