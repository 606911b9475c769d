"""Tests of settlement: holds settled, voided, and voided by the next epoch."""

from __future__ import annotations

import logging

import pytest

from inferd.errors import InsufficientCreditError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.requests.holds import AlertRefusal, OpenHold
from inferd.ledger.requests.settlement import HoldResolvedError, SettleHold, VoidHold, begin_epoch
from inferd.price import Price
from inferd.usage import Usage


def test_epoch_voids_the_holds_of_earlier_epochs(served, store):
    """R20, R16"""
    served.grant(100)
    settled = served.hold(10, 20)
    served.settle(settled, 10, 1)
    orphans = [served.hold(10, 20), served.hold(1, 2)]
    assert begin_epoch(store, served.now_ms + 5) == served.epoch + 1
    assert served.credit().held_nanousd == 0
    assert served.credit().balance_nanousd == 89
    rows = served.conn.execute("SELECT request_id, status, cost_nanousd, finished_at_ms FROM usage ORDER BY 1")
    assert rows.fetchall() == [
        (settled, "completed", 11, served.now_ms),
        *((request_id, "failed", 0, served.now_ms + 5) for request_id in orphans),
    ]
    assert audit(served.conn).clean


def test_epoch_keeps_its_own_holds(served):
    """R20: no wall-clock expiry of a live hold."""
    served.grant(100)
    request_id = served.hold(10, 20)
    served.now_ms += 10**10
    assert served.credit().held_nanousd == 30
    served.settle(request_id, 1)


def test_settlement_charges_the_usage_and_frees_the_rest_of_the_hold(books):
    """R4"""
    books.grant(100)
    request_id = books.hold(10, 20)
    assert books.settle(request_id, 10, 5) == 15
    credit = books.credit()
    assert (credit.balance_nanousd, credit.held_nanousd, credit.available_nanousd) == (85, 0, 85)
    row = books.usage_row(request_id)
    assert (row["prompt_tokens"], row["completion_tokens"], row["compute_ms"], row["cost_nanousd"]) == (10, 5, 7, 15)
    assert (row["status"], row["finish_reason"], row["team"], row["project"]) == (
        "completed",
        "stop",
        "acme",
        "inference",
    )
    assert (row["input_picousd"], row["cached_input_picousd"], row["output_picousd"]) == (1000, 1000, 1000)
    assert books.conn.execute(
        "SELECT account, amount_nanousd FROM entries WHERE txn = ?", (row["txn"],)
    ).fetchall() == [
        ("team:acme:credit:1", -15),
        ("revenue:local/tiny", 15),
    ]


def test_settlement_at_cost_zero_writes_no_entries(books):
    request_id = books.hold(price=Price(0, 0), prompt=10, completion=10)
    assert books.settle(request_id, 10, 5) == 0
    assert books.usage_row(request_id)["txn"] is None
    assert books.one("SELECT count(*) FROM entries") == 0


def test_settlement_of_a_cancelled_request_bills_its_usage(books):
    """R16"""
    books.grant(100)
    request_id = books.hold(10, 20)
    assert books.settle(request_id, 4, 0, status="cancelled", finish_reason=None) == 4
    row = books.usage_row(request_id)
    assert (row["status"], row["finish_reason"], row["cost_nanousd"]) == ("cancelled", None, 4)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_void_costs_nothing_and_writes_a_usage_row(books, status):
    """R16"""
    books.grant(100)
    request_id = books.hold(10, 20)
    books.apply(books.void(request_id, status))
    row = books.usage_row(request_id)
    assert (row["status"], row["cost_nanousd"], row["prompt_tokens"], row["txn"]) == (status, 0, 0, None)
    assert books.credit().available_nanousd == 100
    assert books.credit().held_nanousd == 0


@pytest.mark.parametrize("first", ["settle", "void"])
@pytest.mark.parametrize("second", ["settle", "void"])
def test_resolving_twice_fails_and_changes_nothing(books, first, second):
    """R16: a hold is resolved exactly once."""
    books.grant(100)
    request_id = books.hold(10, 20)
    resolve = {"settle": books.settlement(request_id, 10, 5), "void": books.void(request_id)}
    books.apply(resolve[first])
    before = books.dump()
    with pytest.raises(HoldResolvedError, match="already"):
        books.apply(resolve[second])
    assert books.dump() == before


def test_resolving_without_a_hold_fails(books):
    with pytest.raises(HoldResolvedError, match="never opened"):
        books.settle("nobody")


def test_settlement_above_the_hold_charges_the_hold_and_logs_a_bug(books, caplog):
    """R4: it is a bug, and said so in the log."""
    books.grant(100)
    request_id = books.hold(10, 20)
    with caplog.at_level(logging.ERROR):
        assert books.settle(request_id, 10, 21) == 30
    assert request_id in caplog.text
    assert "above its hold" in caplog.text
    assert books.credit().balance_nanousd == 70


def test_settlement_counts_in_the_period_of_admission(books):
    """R7: admitted in the last millisecond of November, settled in January."""
    books.grant(100)
    books.now_ms = parse_instant_ms("2026-11-30T23:59:59.999Z")
    request_id = books.hold(10, 20)
    books.now_ms += 60 * 24 * 3600 * 1000
    books.settle(request_id, 10, 5)
    rows = books.conn.execute("SELECT period, posted_nanousd, held_nanousd FROM counts WHERE scope = 'team:acme'")
    assert sorted(rows) == [("2026", 15, 0), ("2026-11", 15, 0), ("lifetime", 15, 0)]


def test_usage_row_has_the_price_of_admission(books):
    """R12: whatever the prices are by then."""
    books.grant(10_000)
    price = Price(input_picousd=3_000, output_picousd=5_000)
    request_id = books.hold(10, 20, price=price)
    assert books.apply(
        books.settlement(request_id, usage=Usage(prompt_tokens=10, cached_tokens=3, completion_tokens=1))
    ).cost_nanousd == round(7 * 3 + 3 * 1.5 + 5 + 0.01)
    row = books.usage_row(request_id)
    assert (row["input_picousd"], row["cached_input_picousd"], row["output_picousd"]) == (3_000, None, 5_000)


def test_price_by_time_is_held_at_its_limit_and_settled_by_the_millisecond(books):
    """R4, R14"""
    books.grant(10_000)
    timed = {"price": Price.by_time(2_000), "max_compute_ms": 1_000}
    request_id = books.hold(10, 20, **timed)
    assert books.one("SELECT amount_nanousd FROM holds") == 2_000
    assert books.settle(request_id, usage=Usage(10, 0, 5, compute_ms=123)) == 246
    row = books.usage_row(request_id)
    assert (row["compute_picousd"], row["input_picousd"], row["compute_ms"]) == (2_000, 0, 123)
    books.assert_clean()
    with pytest.raises(InsufficientCreditError, match=r"1000 ms of compute.*smaller max_tokens does not help"):
        books.hold(10, 20, price=Price.by_time(20_000), max_compute_ms=1_000)


def test_usage_row_has_the_multiplier_of_the_service_tier(books):
    """R12, R17"""
    books.grant(10_000)
    request_id = books.hold(10, 20, price=books.price.times(1_500_000), service_tier="priority")
    assert books.one("SELECT amount_nanousd FROM holds") == 45
    assert books.settle(request_id, 10, 7) == 26  # 25.5, rounded half-up
    row = books.usage_row(request_id)
    assert (row["service_tier"], row["multiplier_ppm"]) == ("priority", 1_500_000)
    books.assert_clean()
    books.settle(books.hold(1, 1), 1, 1)
    assert books.one("SELECT count(*) FROM usage WHERE multiplier_ppm IS NULL") == 1


def test_settlement_of_the_whole_hold_logs_no_bug(books, caplog):
    """R4"""
    books.grant(30)
    assert books.settle(books.hold(10, 20), 10, 20) == 30
    assert caplog.records == []


def test_commands_that_resolve_are_durable_and_holds_are_not():
    """A power cut may take back a hold, whose request died with it, and the alert of a refusal; no settlement."""
    assert [c.durable for c in (OpenHold, AlertRefusal, SettleHold, VoidHold)] == [False, False, True, True]


def test_resolving_twice_names_the_first_resolution(books):
    books.grant(30)
    request_id = books.hold(10, 20)
    books.settle(request_id, 1, 1)
    with pytest.raises(HoldResolvedError, match="its hold is settled already"):
        books.settle(request_id, 1, 1)


@pytest.mark.parametrize(("tokens", "alerts"), [(0, 0), (1, 2), (2, 2)])
def test_settlement_alerts_only_above_cost_zero(books, tokens, alerts):
    """R7: one nano-dollar of a budget of none but that crosses its lines; nothing crosses nothing."""
    books.grant(1_000)
    operations.set_budget(books.conn, "acme", 2, "month", by=operations.Author("test", books.now_ms))
    books.alert((1, 50), 0)
    books.settle(books.hold(2, 0), tokens, 0)
    assert books.one("SELECT count(*) FROM alerts") == alerts
