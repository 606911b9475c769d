"""What happens beside the requests: the clock is watched, credit expires, usage is rolled up, alerts go out."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import closing

import pytest

from inferd.config import AlertsConfig
from inferd.ledger.alerts.alerts import all_alerts
from inferd.ledger.alerts.deliveries import Outbox
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter
from inferd.ledger.terms.expiry_clock import PauseClock, accept_clock, clock_state
from inferd.sealed import KeyRing
from inferd.serving.maintenance import MAX_LEAP_MS, Maintenance, Retention, WatchedClock
from inferd.serving.responses.response_store import ResponseStore
from tests.ledger.books import NOW_MS, Books
from tests.serving.test_webhook import SECRET, receiver

DAY_MS = 86_400_000


class Clocks:
    """A wall clock and a steady one that a test turns."""

    wall_ms = NOW_MS
    steady_ms = 1_000

    def go(self, ms):
        self.wall_ms += ms
        self.steady_ms += ms


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def ledger(tmp_path):
    with DataLock(tmp_path / "data") as lock:
        store = Store(tmp_path / "data", lock)
        writer = LedgerWriter(store)
        writer.start()
        with closing(store.connect_writer()) as conn:
            yield store, writer, Books(conn)
        writer.stop()


def watched(writer, clocks):
    return WatchedClock(
        lambda because: writer.submit(PauseClock(because)),
        wall_ms=lambda: clocks.wall_ms,
        steady_ms=lambda: clocks.steady_ms,
    )


def maintenance_of(ledger, clocks, **options):
    store, writer, _ = ledger
    days = options.pop("retention_days", None)
    responses = ResponseStore(store.data_dir, KeyRing(store.data_dir))
    retention = Retention(days, responses, options.pop("responses_days", 0))
    defaults = {"retention": retention, "alerts": AlertsConfig()}
    return Maintenance(store, writer, watched(writer, clocks), **(defaults | options))


def test_clock_that_runs_or_sleeps_has_not_leapt(ledger, clocks):
    """R20"""
    said = []
    clock = WatchedClock(said.append, wall_ms=lambda: clocks.wall_ms, steady_ms=lambda: clocks.steady_ms)
    clocks.go(400 * DAY_MS)
    clocks.wall_ms += MAX_LEAP_MS
    assert (clock(), said) == (clocks.wall_ms, [])
    clocks.wall_ms += 1
    assert clock() == clock() == clocks.wall_ms
    assert said == ["the clock leapt 24.0 hours ahead while a server ran"]
    clock.accept()
    assert (clock(), clock.doubted, len(said)) == (clocks.wall_ms, False, 1)


def test_leap_pauses_expiry_before_the_hold_of_the_request_that_noticed_it(ledger, clocks):
    """R20: a year too far, and the credit that would have expired is still there."""
    _, writer, books = ledger
    books.grant(100, expires_at_ms=NOW_MS + DAY_MS)
    clock = watched(writer, clocks)
    clocks.wall_ms += 365 * DAY_MS
    assert writer.submit(books.open_hold(100, admitted_at_ms=clock())).result(10)
    assert books.remaining() == {1: 100}


def test_clock_is_watched_again_once_the_operator_accepts_it(ledger, clocks, caplog):
    """R20"""
    maintenance = maintenance_of(ledger, clocks)
    conn = ledger[2].conn

    async def run():
        await maintenance.watch_clock()
        clocks.wall_ms += 30 * DAY_MS
        await maintenance.watch_clock()
        assert "leapt 720.0 hours" in clock_state(conn).paused_because
        assert clock_state(conn).seen_ms == NOW_MS
        accept_clock(conn, clocks.wall_ms)
        await maintenance.watch_clock()
        clocks.go(5_000)
        await maintenance.watch_clock()

    asyncio.run(run())
    assert (clock_state(conn).seen_ms, clock_state(conn).paused_because) == (clocks.wall_ms, None)
    assert "inferd doctor --accept-clock" in caplog.text


def test_sweep_expires_credit_and_rolls_up_old_usage(ledger, clocks):
    """R8"""
    books = ledger[2]
    books.grant(100, expires_at_ms=NOW_MS + DAY_MS)
    books.settle(books.hold(3), 3)
    maintenance = maintenance_of(ledger, clocks, retention_days=60)
    asyncio.run(maintenance.sweep(books.conn))
    assert books.one("SELECT count(*) FROM usage") == 1
    clocks.go(62 * DAY_MS)
    asyncio.run(maintenance.sweep(books.conn))
    assert books.remaining() == {1: 0}
    assert books.one("SELECT count(*) FROM usage") == 0
    assert books.one("SELECT sum(cost_nanousd) FROM usage_daily") == 3
    books.assert_clean()


def alert(books):
    books.alert((), 50)
    books.grant(100)
    books.settle(books.hold(95), 95)


def test_credit_expires_within_a_second(ledger, clocks):
    """R8"""
    store, _, books = ledger
    maintenance = maintenance_of(ledger, clocks)

    async def look():
        with closing(store.connect()) as conn:
            await maintenance.expire(conn)

    books.grant(100, expires_at_ms=NOW_MS + 12_000)
    asyncio.run(look())
    assert books.remaining() == {1: 100}
    clocks.go(12_000)
    asyncio.run(look())
    assert books.remaining() == {1: 0}
    assert [alert.period for alert in all_alerts(books.conn)] == ["grant 1"]


def told(maintenance, store, times=1):
    async def run():
        with closing(Outbox(store)) as outbox:
            for _ in range(times):
                await maintenance.deliver_alerts(outbox)

    asyncio.run(run())


def test_alert_is_logged_and_delivered_once(ledger, clocks, caplog):
    """R7"""
    store, _, books = ledger
    with receiver() as (url, got):
        maintenance = maintenance_of(ledger, clocks, alerts=AlertsConfig((url,), SECRET))
        told(maintenance, store)
        alert(books)
        told(maintenance, store, times=3)
    assert caplog.text.count("alert: team acme has $0.000000005 of credit left") == 1
    ((_, headers, body),) = got
    message = json.loads(body)
    assert (message["type"], message["timestamp"]) == ("alert.low_balance", "2026-11-20T12:00:00.000Z")
    assert message["data"]["limit_usd"] == "0.000000100"
    assert headers["webhook-id"] == "alert_1"


def test_alert_is_delivered_after_a_failed_webhook_and_a_restart(ledger, clocks, caplog):
    """R7"""
    caplog.set_level(logging.WARNING)
    store, _, books = ledger
    alert(books)
    with receiver(500) as (url, refused):
        told(maintenance_of(ledger, clocks, alerts=AlertsConfig((url,), SECRET)), store, times=2)
    assert len(refused) == 1
    assert "alert 1 is waiting" in caplog.text
    with receiver() as (other, got):
        # The same webhook, up again elsewhere: the test cannot have the port back.
        books.conn.execute("UPDATE deliveries SET url = ?", (other,))
        after = maintenance_of(ledger, clocks, alerts=AlertsConfig((other,), SECRET))
        told(after, store)
        assert got == []
        clocks.go(5_000)
        told(after, store, times=2)
    assert len(got) == 1


def test_failure_of_maintenance_is_logged_and_does_not_end_it(ledger, clocks, monkeypatch, caplog):
    maintenance = maintenance_of(ledger, clocks, clock_s=0.0)
    calls = []

    async def broken():
        calls.append(1)
        raise KeyError("bug")

    monkeypatch.setattr(maintenance, "watch_clock", broken)

    async def run():
        task = asyncio.create_task(maintenance.run())
        while len(calls) < 3:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    assert "maintenance of the ledger failed" in caplog.text
