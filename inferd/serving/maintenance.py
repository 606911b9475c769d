"""Periodic work while a server runs: watch the clock, expire credit and responses, roll up usage, deliver alerts."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass

from inferd.config import AlertsConfig
from inferd.errors import InferdError
from inferd.instants import DAY_MS, format_instant, steady_clock_ms, wall_clock_ms
from inferd.ledger import Connection, LedgerWriter, Store
from inferd.ledger.alerts import Alert, Delivery, Event, Outbox, PlanDeliveries, RecordDelivery, alert_text
from inferd.ledger.credit import ExpireGrants, expired_between
from inferd.ledger.maintenance.retention import RollUpUsage, cutoff_ms
from inferd.ledger.reports import alert_record
from inferd.ledger.terms import ObserveClock, expiry_ms
from inferd.serving.responses.response_store import ResponseStore
from inferd.serving.webhook import WebhookSender

logger = logging.getLogger(__name__)

CLOCK_S = 60.0
SWEEP_S = 3600.0
EXPIRY_S = 1.0
ALERTS_S = 1.0
MAX_LEAP_MS = 24 * 3_600_000
"""How far the wall clock may run ahead of the monotonic one in a process before it is doubted (BILLING R20)."""


class WatchedClock:
    """Wall clock that reports a leap ahead at the first reading after it.

    Args:
        on_leap: called once with a description, before the reading is returned, so that every use of the reading comes
            after the effects of `on_leap`. `accept` arms it again.
    """

    def __init__(
        self,
        on_leap: Callable[[str], object],
        *,
        wall_ms: Callable[[], int] = wall_clock_ms,
        steady_ms: Callable[[], int] = steady_clock_ms,
    ) -> None:
        self._on_leap = on_leap
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        self.doubted = False
        self.accept()

    def accept(self) -> None:
        """Trust the wall clock as it is now."""
        self.doubted = False
        self._offset_ms = self._wall_ms() - self._steady_ms()

    def __call__(self) -> int:
        """Return milliseconds since 1970."""
        now_ms = self._wall_ms()
        ahead_ms = now_ms - self._steady_ms() - self._offset_ms
        if ahead_ms > MAX_LEAP_MS and not self.doubted:
            self.doubted = True
            self._on_leap(f"the clock leapt {ahead_ms / 3_600_000:.1f} hours ahead while a server ran")
        return now_ms


@dataclass(frozen=True, slots=True)
class Retention:
    """Ages at which data is given up.

    Attributes:
        usage_days: usage is rolled up then; None: never.
        responses: the responses of all teams.
        responses_days: responses are erased then; 0: all of them are.
    """

    usage_days: int | None
    responses: ResponseStore
    responses_days: int


class Maintenance:
    """Runs on the event loop, reads on a connection of its own, writes through the ledger's writer.

    Args:
        clock: the one that the server's requests are dated by.
        clock_s: seconds between two looks at the clock.
    """

    def __init__(
        self,
        store: Store,
        writer: LedgerWriter,
        clock: WatchedClock,
        *,
        retention: Retention,
        alerts: AlertsConfig,
        clock_s: float = CLOCK_S,
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._retention = retention
        self._clock_s = clock_s
        self._urls, self._event_urls = alerts.webhooks, alerts.event_webhooks
        self._sender = WebhookSender(alerts.webhook_secret, allow_private=alerts.allow_private_addresses)
        # Newest alert that was logged, and newest alert that has its rows of deliveries.
        self._logged_id: int | None = None
        self._planned_id = -1
        self._planned_event_id = -1
        self._expired_ms = 0

    async def run(self) -> None:
        """Work until cancelled."""
        with closing(Outbox(self._store)) as outbox, closing(self._store.connect()) as conn:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_every(self._clock_s, self.watch_clock))
                    group.create_task(_every(SWEEP_S, lambda: self.sweep(conn)))
                    group.create_task(_every(EXPIRY_S, lambda: self.expire(conn)))
                    group.create_task(_every(ALERTS_S, lambda: self.deliver_alerts(outbox)))
                    group.create_task(_every(ALERTS_S, lambda: self.deliver_events(outbox)))
            finally:
                await self._sender.close()

    async def watch_clock(self) -> None:
        """Record the time in the ledger. Trust the clock again once the operator has accepted it."""
        state = await self._writer.execute(ObserveClock(self._clock()))
        if state.paused_because is not None:
            logger.warning(
                "credit does not expire, %s; `inferd doctor --accept-clock` once it is right", state.paused_because
            )
        elif self._clock.doubted:
            self._clock.accept()

    async def expire(self, conn: Connection) -> None:
        """Expire credit of all teams, if a grant has expired since the last call."""
        now_ms = self._clock()
        if expired_between(conn, self._expired_ms, now_ms):
            await self._writer.execute(ExpireGrants(now_ms))
        self._expired_ms = now_ms

    async def sweep(self, conn: Connection) -> None:
        """Expire credit and responses of all teams, then roll up old usage, little by little."""
        now_ms, retention = self._clock(), self._retention
        await self._writer.execute(ExpireGrants(now_ms))
        before_ms = expiry_ms(conn, now_ms) - retention.responses_days * DAY_MS
        num_erased = await asyncio.to_thread(retention.responses.expire, before_ms)
        if num_erased:
            logger.info("%d responses have expired and were erased", num_erased)
        if retention.usage_days is None:
            return
        before_ms = cutoff_ms(retention.usage_days, now_ms)
        while await self._writer.execute(RollUpUsage(before_ms, now_ms)):
            # Leave the writer to the commands of requests.
            await asyncio.sleep(0.05)

    async def deliver_alerts(self, outbox: Outbox) -> None:
        """Log new alerts, and deliver those that are due."""
        newest_id = outbox.newest_id()
        for alert in outbox.alerts_after(newest_id if self._logged_id is None else self._logged_id):
            logger.warning("alert: %s", alert_text(alert))
        self._logged_id = newest_id
        if not self._urls:
            return
        now_ms = self._clock()
        if newest_id > self._planned_id:
            await self._writer.execute(PlanDeliveries(self._urls, now_ms))
            self._planned_id = newest_id
        waiting = outbox.due(self._urls, now_ms)
        await asyncio.gather(*(self._deliver(delivery, alert) for delivery, alert in waiting))

    async def deliver_events(self, outbox: Outbox) -> None:
        """Deliver ends of batches and responses that are due."""
        if not self._event_urls:
            return
        now_ms, newest_id = self._clock(), outbox.newest_event_id()
        if newest_id > self._planned_event_id:
            await self._writer.execute(PlanDeliveries(self._event_urls, now_ms, "event"))
            self._planned_event_id = newest_id
        waiting = outbox.due_events(self._event_urls, now_ms)
        await asyncio.gather(*(self._deliver_event(delivery, event) for delivery, event in waiting))

    async def _deliver_event(self, delivery: Delivery, event: Event) -> None:
        message = {
            "id": event.name,
            "object": "event",
            "created_at": event.at_ms // 1000,
            "type": event.type,
            "data": {"id": event.object_id},
        }
        error = await self._sender.send(delivery.url, event.name, self._clock() // 1000, json.dumps(message).encode())
        record = RecordDelivery(event.event_id, delivery.url, error, self._clock(), "event")
        after = await self._writer.execute(record)
        if after.state != "delivered":
            logger.warning("event %s is %s for %s: %s", event.name, after.state, delivery.url, error)

    async def _deliver(self, delivery: Delivery, alert: Alert) -> None:
        message = {"type": f"alert.{alert.kind}", "timestamp": format_instant(alert.at_ms), "data": alert_record(alert)}
        body = json.dumps(message).encode()
        error = await self._sender.send(delivery.url, f"alert_{alert.alert_id}", self._clock() // 1000, body)
        after = await self._writer.execute(RecordDelivery(alert.alert_id, delivery.url, error, self._clock()))
        if after.state != "delivered":
            logger.warning("alert %d is %s for %s: %s", alert.alert_id, after.state, delivery.url, error)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` now and then periodically. A failure is logged and does not end it."""
    while True:
        try:
            await work()
        except InferdError as error:
            logger.warning("maintenance of the ledger: %s", error)
        except Exception:  # a fault here must not end the server
            logger.exception("maintenance of the ledger failed")
        await asyncio.sleep(seconds)
