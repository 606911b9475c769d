"""The outbox of alerts: each to each webhook, again until it arrives, for a day, across restarts."""

from __future__ import annotations

from contextlib import closing

import pytest

from inferd.ledger.alerts.alerts import alert_text
from inferd.ledger.alerts.deliveries import (
    MAX_ATTEMPTS,
    Outbox,
    PlanDeliveries,
    RecordDelivery,
    alert_states,
)
from inferd.ledger.reports.records import alert_state_record
from tests.ledger.books import NOW_MS

HERE, THERE = "https://here.example/", "https://there.example/"
DAY_MS = 86_400_000


@pytest.fixture
def outbox(store):
    with closing(Outbox(store)) as outbox:
        yield outbox


@pytest.fixture
def alerted(served):
    """Two alerts: credit of 100 is low, then that of the next grant."""
    served.alert((), 50)
    for _ in range(2):
        served.grant(100)
        served.settle(served.hold(95), 95)
    return served


def test_each_alert_is_due_at_each_webhook_at_once(alerted, outbox):
    """R7"""
    assert outbox.newest_id() == 2
    assert outbox.due((HERE,), NOW_MS) == []
    alerted.apply(PlanDeliveries((HERE, THERE), NOW_MS))
    alerted.apply(PlanDeliveries((HERE, THERE), NOW_MS + 5))
    found = outbox.due((HERE, THERE), NOW_MS)
    assert {(delivery.url, alert.alert_id, delivery.attempts) for delivery, alert in found} == {
        (url, alert_id, 0) for url in (HERE, THERE) for alert_id in (1, 2)
    }
    assert {delivery.url for delivery, _ in outbox.due((THERE,), NOW_MS)} == {THERE}


def test_what_arrived_is_not_due_any_more(alerted, outbox):
    alerted.apply(PlanDeliveries((HERE,), NOW_MS))
    assert alerted.apply(RecordDelivery(1, HERE, None, NOW_MS)).state == "delivered"
    assert [alert.alert_id for _, alert in outbox.due((HERE,), NOW_MS + DAY_MS)] == [2]


def test_what_failed_is_tried_again_for_about_a_day_and_then_is_a_dead_letter(alerted, outbox):
    """R7"""
    alerted.apply(PlanDeliveries((HERE,), NOW_MS))
    alerted.apply(RecordDelivery(2, HERE, None, NOW_MS))
    now_ms, delays_s = NOW_MS, []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert [alert.alert_id for _, alert in outbox.due((HERE,), now_ms)] == [1]
        delivery = alerted.apply(RecordDelivery(1, HERE, "it answered with status 503", now_ms))
        assert delivery.attempts == attempt
        if delivery.next_at_ms is not None:
            assert outbox.due((HERE,), delivery.next_at_ms - 1) == []
            delays_s.append((delivery.next_at_ms - now_ms) // 1000)
            now_ms = delivery.next_at_ms
    assert delays_s[:4] == [5, 15, 45, 135]
    assert 20 * 3600 < sum(delays_s) < 24 * 3600
    assert (delivery.state, delivery.last_error) == ("dead", "it answered with status 503")
    assert outbox.due((HERE,), now_ms + 10 * DAY_MS) == []


def test_a_webhook_that_is_new_is_not_told_old_news(alerted, outbox):
    later_ms = NOW_MS + 2 * DAY_MS
    alerted.apply(PlanDeliveries((HERE,), later_ms))
    assert outbox.due((HERE,), later_ms) == []
    assert {delivery.last_error for state in alert_states(alerted.conn) for delivery in state.deliveries} == {
        "older than this webhook"
    }
    alerted.now_ms = later_ms - DAY_MS - 1
    alerted.grant(100)
    alerted.settle(alerted.hold(105), 105)
    alerted.apply(PlanDeliveries((HERE,), later_ms))
    assert [alert.alert_id for _, alert in outbox.due((HERE,), later_ms)] == [3]


def test_alerts_are_listed_with_what_became_of_them(alerted):
    alerted.apply(PlanDeliveries((HERE,), NOW_MS))
    first, second = alert_states(alerted.conn, "acme")
    assert alert_state_record(first)["deliveries"][0]["state"] == "waiting"
    assert "has $0.000000005 of credit left, less than 50 % of its last grant" in alert_text(first.alert)
    assert second.alert.period == "grant 2"
    assert alert_states(alerted.conn, "nobody") == []
