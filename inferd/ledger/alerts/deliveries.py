"""Deliveries of alerts and events to webhooks: at least once each, for about a day, then a dead letter.

A row of `deliveries` or `event_deliveries` is waiting (`next_at_ms`), delivered or dead. The rows are written here and
not with the alerts and events, so that the ledger's own transactions know nothing of webhooks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from inferd.instants import DAY_MS
from inferd.ledger.alerts.alerts import ALERT_COLUMNS, Alert, all_alerts
from inferd.ledger.alerts.events import EVENT_COLUMNS, Event
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.store import Store

_FIRST_DELAY_MS = 5_000
_DELAY_FACTOR = 3
_LONGEST_DELAY_MS = 6 * 3_600_000
# 5 s, 15 s, 45 s, ... 3 h, then 6 h three times: 22.5 hours from the first attempt to the last.
MAX_ATTEMPTS = 12
# A new webhook gets no alert that is older.
_NEWS_MS = DAY_MS


Kind = Literal["alert", "event"]
_TABLES: dict[Kind, tuple[str, str]] = {"alert": ("alerts", "deliveries"), "event": ("events", "event_deliveries")}


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivery of one alert or event to one webhook.

    Attributes:
        number: of the alert or event.
    """

    number: int
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


_STATE_COLUMNS = ", ".join(list(Delivery.__dataclass_fields__)[1:])
_COLUMNS = f"alert_id, {_STATE_COLUMNS}"


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

    def newest_event_id(self) -> int:
        """Return the id of the newest event; 0 if there is none."""
        newest: int = self._conn.execute("SELECT coalesce(max(event_id), 0) FROM events").fetchone()[0]
        return newest

    def due(self, urls: Sequence[str], now_ms: int) -> list[tuple[Delivery, Alert]]:
        """Return at most 100 deliveries of alerts to these webhooks that are due, the one that waits longest first."""
        one = f"SELECT {ALERT_COLUMNS} FROM alerts WHERE alert_id = ?"
        due = self._due("alert", urls, now_ms)
        return [(delivery, Alert(*self._conn.execute(one, (delivery.number,)).fetchone())) for delivery in due]

    def due_events(self, urls: Sequence[str], now_ms: int) -> list[tuple[Delivery, Event]]:
        """Return deliveries of events as `due` does those of alerts."""
        one = f"SELECT {EVENT_COLUMNS} FROM events WHERE event_id = ?"
        due = self._due("event", urls, now_ms)
        return [(delivery, Event(*self._conn.execute(one, (delivery.number,)).fetchone())) for delivery in due]

    def _due(self, kind: Kind, urls: Sequence[str], now_ms: int) -> list[Delivery]:
        rows = self._conn.execute(
            f"SELECT {kind}_id, {_STATE_COLUMNS} FROM {_TABLES[kind][1]} WHERE next_at_ms <= ? "
            f"AND url IN ({', '.join('?' * len(urls))}) ORDER BY next_at_ms, {kind}_id LIMIT 100",
            (now_ms, *urls),
        )
        return [Delivery(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class PlanDeliveries:
    """Command that inserts a delivery of each alert or event to each webhook; for a new webhook an old one is dead at
    once."""

    durable: ClassVar[bool] = True
    urls: tuple[str, ...]
    now_ms: int
    kind: Kind = "alert"

    def apply(self, conn: sqlite3.Connection) -> None:
        source, table = _TABLES[self.kind]
        for url in self.urls:
            new = not conn.execute(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE url = ?)", (url,)).fetchone()[0]
            oldest_ms = self.now_ms - _NEWS_MS if new else 0
            conn.execute(
                f"INSERT INTO {table} ({self.kind}_id, {_STATE_COLUMNS}) "
                f"SELECT {self.kind}_id, ?1, 0, iif(at_ms >= ?2, ?3, NULL), NULL, iif(at_ms >= ?2, NULL, ?3), "
                f"iif(at_ms >= ?2, NULL, 'older than this webhook') FROM {source} "
                f"WHERE {self.kind}_id NOT IN (SELECT {self.kind}_id FROM {table} WHERE url = ?1)",
                (url, oldest_ms, self.now_ms),
            )


@dataclass(frozen=True, slots=True)
class RecordDelivery:
    """Command that stores an attempt. `error` None: delivered; else the delivery is tried again later, or is dead."""

    durable: ClassVar[bool] = True
    number: int
    url: str
    error: str | None
    now_ms: int
    kind: Kind = "alert"

    def apply(self, conn: sqlite3.Connection) -> Delivery:
        table = _TABLES[self.kind][1]
        where = f"WHERE {self.kind}_id = ? AND url = ?"
        key = (self.number, self.url)
        attempts: int = conn.execute(f"SELECT attempts + 1 FROM {table} {where}", key).fetchone()[0]
        dead = self.error is not None and attempts >= MAX_ATTEMPTS
        delivered_at_ms = self.now_ms if self.error is None else None
        dead_at_ms = self.now_ms if dead else None
        next_at_ms = None if self.error is None or dead else self.now_ms + _delay_ms(attempts)
        conn.execute(
            f"UPDATE {table} SET attempts = ?, next_at_ms = ?, delivered_at_ms = ?, dead_at_ms = ?, last_error = ? "
            + where,
            (attempts, next_at_ms, delivered_at_ms, dead_at_ms, self.error, *key),
        )
        row = conn.execute(f"SELECT {self.kind}_id, {_STATE_COLUMNS} FROM {table} {where}", key).fetchone()
        return Delivery(*row)


def _delay_ms(attempts: int) -> int:
    grown_ms: int = _FIRST_DELAY_MS * _DELAY_FACTOR ** (attempts - 1)
    return min(grown_ms, _LONGEST_DELAY_MS)
