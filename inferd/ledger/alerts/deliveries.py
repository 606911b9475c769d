"""Deliveries of alerts to webhooks: at least once each, for about a day, then a dead letter.

A row of `deliveries` is waiting (`next_at_ms`), delivered or dead. The rows are written here and not with the alerts,
so that the ledger's own transactions know nothing of webhooks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from inferd.instants import DAY_MS
from inferd.ledger.alerts.alerts import ALERT_COLUMNS, Alert, all_alerts
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.store import Store

_FIRST_DELAY_MS = 5_000
_DELAY_FACTOR = 3
_LONGEST_DELAY_MS = 6 * 3_600_000
# 5 s, 15 s, 45 s, ... 3 h, then 6 h three times: 22.5 hours from the first attempt to the last.
MAX_ATTEMPTS = 12
# A new webhook gets no alert that is older.
_NEWS_MS = DAY_MS


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivery of one alert to one webhook."""

    alert_id: int
    url: str
    attempts: int
    next_at_ms: int | None
    delivered_at_ms: int | None
    dead_at_ms: int | None
    last_error: str | None

    @property
    def state(self) -> str:
        """`waiting`, `delivered` or `dead`."""
        if self.delivered_at_ms is not None:
            return "delivered"
        return "waiting" if self.dead_at_ms is None else "dead"


_COLUMNS = ", ".join(Delivery.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class AlertState:
    """An alert with its deliveries."""

    alert: Alert
    deliveries: tuple[Delivery, ...]


def alert_states(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[AlertState]:
    """Return a page of the alerts of one team or of all, oldest first, with their deliveries."""
    of_alert = f"SELECT {_COLUMNS} FROM deliveries WHERE alert_id = ? ORDER BY url"
    return [
        AlertState(alert, tuple(Delivery(*row) for row in conn.execute(of_alert, (alert.alert_id,))))
        for alert in all_alerts(conn, team, page)
    ]


class Outbox:
    """Alerts and deliveries to send, read on a connection of its own. Belongs to one thread."""

    def __init__(self, store: Store) -> None:
        self._conn = store.connect()

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def newest_id(self) -> int:
        """Return the id of the newest alert; 0 if there is none."""
        newest: int = self._conn.execute("SELECT coalesce(max(alert_id), 0) FROM alerts").fetchone()[0]
        return newest

    def alerts_after(self, alert_id: int) -> list[Alert]:
        """Return the alerts after an id, oldest first."""
        rows = self._conn.execute(
            f"SELECT {ALERT_COLUMNS} FROM alerts WHERE alert_id > ? ORDER BY alert_id", (alert_id,)
        )
        return [Alert(*row) for row in rows]

    def due(self, urls: Sequence[str], now_ms: int) -> list[tuple[Delivery, Alert]]:
        """Return at most 100 deliveries to these webhooks that are due, the one that waits longest first."""
        marks = ", ".join("?" * len(urls))
        rows = self._conn.execute(
            f"SELECT {_COLUMNS} FROM deliveries WHERE next_at_ms <= ? AND url IN ({marks}) "
            "ORDER BY next_at_ms, alert_id LIMIT 100",
            (now_ms, *urls),
        ).fetchall()
        one = f"SELECT {ALERT_COLUMNS} FROM alerts WHERE alert_id = ?"
        return [(Delivery(*row), Alert(*self._conn.execute(one, (row[0],)).fetchone())) for row in rows]


@dataclass(frozen=True, slots=True)
class PlanDeliveries:
    """Command that inserts a delivery of each alert to each webhook; for a new webhook an old alert is dead at once."""

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
    """Command that stores an attempt. `error` None: delivered; else the delivery is tried again later, or is dead."""

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
        delivered_at_ms = self.now_ms if self.error is None else None
        dead_at_ms = self.now_ms if dead else None
        next_at_ms = None if self.error is None or dead else self.now_ms + _delay_ms(attempts)
        conn.execute(
            "UPDATE deliveries SET attempts = ?, next_at_ms = ?, delivered_at_ms = ?, dead_at_ms = ?, last_error = ? "
            + where,
            (attempts, next_at_ms, delivered_at_ms, dead_at_ms, self.error, *key),
        )
        return Delivery(*conn.execute(f"SELECT {_COLUMNS} FROM deliveries {where}", key).fetchone())


def _delay_ms(attempts: int) -> int:
    grown_ms: int = _FIRST_DELAY_MS * _DELAY_FACTOR ** (attempts - 1)
    return min(grown_ms, _LONGEST_DELAY_MS)
