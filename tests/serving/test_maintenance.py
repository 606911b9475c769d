"""What happens beside the requests: the clock is watched, credit expires, usage is rolled up, alerts go out."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import closing

import msgspec
import pytest

from inferd.config import AlertsConfig
from inferd.ledger.alerts.alerts import all_alerts
from inferd.ledger.alerts.deliveries import Outbox
from inferd.ledger.alerts.events import record_event
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter
from inferd.ledger.terms.expiry_clock import PauseClock, accept_clock, clock_state
from inferd.sealed import KeyRing
from inferd.serving.maintenance import MAX_LEAP_MS, Maintenance, Retention, WatchedClock
from inferd.serving.responses.response_store import ResponseRecord, ResponseStore
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


def test_event_reaches_its_webhooks_in_the_shape_of_openai_until_one_accepts_it(ledger, clocks):
    _, _, books = ledger
    books.grant(1)
    for _ in range(2):
        record_event(books.conn, "response.completed", "acme", "resp_0a1b", now_ms=NOW_MS)
    with receiver(500) as (refusing, refused), receiver() as (accepting, accepted):
        alerts = AlertsConfig(event_webhooks=(refusing, accepting), webhook_secret=SECRET)
        maintenance = maintenance_of(ledger, clocks, alerts=alerts)

        async def run():
            with closing(Outbox(ledger[0])) as outbox:
                for ms in (0, 4_999, 1):
                    clocks.go(ms)
                    await maintenance.deliver_events(outbox)
                assert outbox.newest_id() == 0, "an event is no alert"

        asyncio.run(run())
    ((_, headers, body),) = accepted
    assert json.loads(body) == {
        "id": "evt_0a1b",
        "object": "event",
        "created_at": NOW_MS // 1000,
        "type": "response.completed",
        "data": {"id": "resp_0a1b"},
    }
    assert {sent["webhook-id"] for _, sent, _ in [*refused, *accepted]} == {"evt_0a1b"}
    assert len(refused) == 2, "again after 5 s, and not before"
    assert headers["webhook-signature"].startswith("v1,")


def test_responses_expire_after_their_days_and_take_the_team_key_with_them(ledger, clocks):
    store = ledger[0]
    responses = ResponseStore(store.data_dir, KeyRing(store.data_dir))
    old, young = (f"resp_{at_ms:012x}{'0' * 20}" for at_ms in (NOW_MS - DAY_MS, NOW_MS))
    record = ResponseRecord("inference", old, msgspec.Raw(b'"text"'), msgspec.Raw(b"{}"))
    for response_id in (old, young):
        responses.publish("acme", response_id, record)
    maintenance = maintenance_of(ledger, clocks, responses_days=1)
    asyncio.run(maintenance.sweep(ledger[2].conn))
    assert responses.read("acme", old) == record
    clocks.go(1)
    asyncio.run(maintenance.sweep(ledger[2].conn))
    assert (responses.read("acme", old), responses.read("acme", young)) == (None, record)
    assert (store.data_dir / "team-keys" / "acme").exists()
    clocks.go(DAY_MS)
    asyncio.run(maintenance.sweep(ledger[2].conn))
    assert not (store.data_dir / "team-keys" / "acme").exists()
    assert not (responses.folder / "acme").exists()
