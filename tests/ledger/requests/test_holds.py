"""A hold is opened within the credit, and resolved exactly once for no more than it held."""

from __future__ import annotations

import logging

import pytest

from inferd.attribution import Attribution
from inferd.errors import InsufficientCreditError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.requests.holds import AlertRefusal, Hold, HoldResolvedError, OpenHold, SettleHold, VoidHold
from inferd.ledger.requests.usage import RecordFree
from inferd.price import Price
from inferd.usage import Usage


def usage_row(books, request_id):
    books.conn.row_factory = lambda cursor, row: dict(zip((c[0] for c in cursor.description), row, strict=True))
    try:
        (row,) = books.conn.execute("SELECT * FROM usage WHERE request_id = ?", (request_id,)).fetchall()
        return row
    finally:
        books.conn.row_factory = None


def test_a_hold_keeps_the_worst_case_from_the_credit(books):
    """R4"""
    books.grant(100)
    hold = books.apply(books.open_hold(10, 20, request_id="r"))
    assert hold == Hold("r", 30)
    credit = books.credit()
    assert (credit.balance_nanousd, credit.held_nanousd, credit.available_nanousd) == (100, 30, 70)


def test_settling_charges_what_was_used_and_frees_the_rest(books):
    """R4"""
    books.grant(100)
    request_id = books.hold(10, 20)
    assert books.settle(request_id, 10, 5) == 15
    credit = books.credit()
    assert (credit.balance_nanousd, credit.held_nanousd, credit.available_nanousd) == (85, 0, 85)
    row = usage_row(books, request_id)
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


def test_a_request_that_costs_nothing_settles_without_entries(books):
    request_id = books.hold(price=Price(0, 0), prompt=10, completion=10)
    assert books.settle(request_id, 10, 5) == 0
    assert usage_row(books, request_id)["txn"] is None
    assert books.one("SELECT count(*) FROM entries") == 0


def test_credit_for_exactly_k_requests_admits_exactly_k(books):
    """R4: all are admitted before the first ends."""
    books.grant(3 * 30 + 29)
    for _ in range(3):
        books.hold(10, 20)
    for _ in range(2):
        with pytest.raises(InsufficientCreditError):
            books.hold(10, 20)
    assert books.credit().available_nanousd == 29


def test_a_hold_may_take_the_last_nano_dollar_and_not_one_more(books):
    """R4"""
    books.grant(30)
    with pytest.raises(InsufficientCreditError):
        books.hold(10, 21)
    books.hold(10, 20)
    assert books.credit().available_nanousd == 0


def test_a_refusal_says_the_cost_what_there_is_and_what_would_fit(books):
    """R4"""
    books.grant(30)
    with pytest.raises(InsufficientCreditError) as refusal:
        books.hold(10, 100)
    assert refusal.value.code == "credit_balance_exhausted"
    assert refusal.value.retry_after_s is None
    assert "$0.00000011" in refusal.value.message
    assert "$0.00000003 available" in refusal.value.message
    assert "max_tokens that would fit is 20." in refusal.value.message
    books.hold(10, 20)


@pytest.mark.parametrize("credit", [5, 10])
def test_a_refusal_says_that_no_max_tokens_would_fit(books, credit):
    """R4: the prompt alone is too much, or takes all there is."""
    books.grant(credit)
    with pytest.raises(InsufficientCreditError, match="not even one completion token is covered"):
        books.hold(10, 1)


def test_credit_held_by_requests_under_way_is_worth_waiting_for(books):
    """R4: one code a cause."""
    books.grant(40)
    first = books.hold(10, 20)
    with pytest.raises(InsufficientCreditError) as refusal:
        books.hold(10, 20)
    assert refusal.value.code == "in_flight_budget_exhausted"
    assert refusal.value.retry_after_s == 1.0
    assert "hold $0.00000003" in refusal.value.message
    books.settle(first, 5, 5)
    books.hold(10, 20)


def test_credit_that_is_enough_to_the_last_nano_dollar_is_worth_waiting_for(books):
    """R4"""
    books.grant(30)
    books.hold(0, 1)
    with pytest.raises(InsufficientCreditError) as refusal:
        books.hold(10, 20)
    assert refusal.value.code == "in_flight_budget_exhausted"
    with pytest.raises(InsufficientCreditError) as refusal:
        books.hold(10, 21)
    assert refusal.value.code == "credit_balance_exhausted"


def test_a_refused_hold_changes_nothing(books):
    """R4"""
    books.grant(5, expires_at_ms=books.now_ms + 1)
    books.now_ms += 1
    before = books.dump()
    with pytest.raises(InsufficientCreditError):
        books.hold(10, 20)
    assert books.dump() == before


def test_a_hang_up_is_billed_for_what_was_done(books):
    """R16"""
    books.grant(100)
    request_id = books.hold(10, 20)
    assert books.settle(request_id, 4, 0, status="cancelled", finish_reason=None) == 4
    row = usage_row(books, request_id)
    assert (row["status"], row["finish_reason"], row["cost_nanousd"]) == ("cancelled", None, 4)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_void_costs_nothing_and_leaves_a_usage_row(books, status):
    """R16"""
    books.grant(100)
    request_id = books.hold(10, 20)
    books.apply(books.void(request_id, status))
    row = usage_row(books, request_id)
    assert (row["status"], row["cost_nanousd"], row["prompt_tokens"], row["txn"]) == (status, 0, 0, None)
    assert books.credit().available_nanousd == 100
    assert books.credit().held_nanousd == 0


@pytest.mark.parametrize("first", ["settle", "void"])
@pytest.mark.parametrize("second", ["settle", "void"])
def test_a_second_resolution_is_an_error_that_changes_nothing(books, first, second):
    """R16: a hold is resolved exactly once."""
    books.grant(100)
    request_id = books.hold(10, 20)
    resolve = {"settle": books.settlement(request_id, 10, 5), "void": books.void(request_id)}
    books.apply(resolve[first])
    before = books.dump()
    with pytest.raises(HoldResolvedError, match="already"):
        books.apply(resolve[second])
    assert books.dump() == before


def test_resolving_what_was_never_held_is_an_error(books):
    with pytest.raises(HoldResolvedError, match="never opened"):
        books.settle("nobody")


def test_more_than_was_held_is_never_charged(books, caplog):
    """R4: it is a bug, and said so in the log."""
    books.grant(100)
    request_id = books.hold(10, 20)
    with caplog.at_level(logging.ERROR):
        assert books.settle(request_id, 10, 21) == 30
    assert request_id in caplog.text
    assert "above its hold" in caplog.text
    assert books.credit().balance_nanousd == 70


def test_a_request_counts_in_the_period_of_its_admission(books):
    """R7: admitted in the last millisecond of November, settled in January."""
    books.grant(100)
    books.now_ms = parse_instant_ms("2026-11-30T23:59:59.999Z")
    request_id = books.hold(10, 20)
    books.now_ms += 60 * 24 * 3600 * 1000
    books.settle(request_id, 10, 5)
    rows = books.conn.execute("SELECT period, posted_nanousd, held_nanousd FROM counts WHERE scope = 'team:acme'")
    assert sorted(rows) == [("2026", 15, 0), ("2026-11", 15, 0), ("lifetime", 15, 0)]


def test_a_free_request_needs_no_credit_and_writes_a_row_at_cost_0(books):
    """R7"""
    command = RecordFree(
        request_id="free-1",
        attribution=Attribution("acme", "inference", None, books.key.id, "local/free", "default"),
        usage=Usage(8, 2, 3, 4),
        status="completed",
        admitted_at_ms=books.now_ms,
        finished_at_ms=books.now_ms + 9,
        finish_reason="length",
    )
    books.apply(command)
    row = usage_row(books, "free-1")
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"], row["cost_nanousd"]) == (8, 2, 3, 0)
    assert (row["input_picousd"], row["output_picousd"], row["finish_reason"]) == (None, None, "length")
    assert books.one("SELECT count(*) FROM counters") == 0
    assert books.one("SELECT count(*) FROM holds") == 0


def test_the_price_of_admission_is_kept_on_the_row(books):
    """R12: whatever the prices are by then."""
    books.grant(10_000)
    price = Price(input_picousd=3_000, output_picousd=5_000)
    request_id = books.hold(10, 20, price=price)
    assert books.apply(
        books.settlement(request_id, usage=Usage(prompt_tokens=10, cached_tokens=3, completion_tokens=1))
    ).cost_nanousd == round(7 * 3 + 3 * 1.5 + 5 + 0.01)
    row = usage_row(books, request_id)
    assert (row["input_picousd"], row["cached_input_picousd"], row["output_picousd"]) == (3_000, None, 5_000)


def test_time_is_held_at_its_limit_and_billed_by_the_millisecond(books):
    """R4, R14"""
    books.grant(10_000)
    timed = {"price": Price.by_time(2_000), "max_compute_ms": 1_000}
    request_id = books.hold(10, 20, **timed)
    assert books.one("SELECT amount_nanousd FROM holds") == 2_000
    assert books.settle(request_id, usage=Usage(10, 0, 5, compute_ms=123)) == 246
    row = usage_row(books, request_id)
    assert (row["compute_picousd"], row["input_picousd"], row["compute_ms"]) == (2_000, 0, 123)
    books.assert_clean()
    with pytest.raises(InsufficientCreditError, match=r"1000 ms of compute.*smaller max_tokens does not help"):
        books.hold(10, 20, price=Price.by_time(20_000), max_compute_ms=1_000)


def test_the_multiplier_of_a_tier_is_kept_on_the_row(books):
    """R12, R17"""
    books.grant(10_000)
    request_id = books.hold(10, 20, price=books.price.times(1_500_000), service_tier="priority")
    assert books.one("SELECT amount_nanousd FROM holds") == 45
    assert books.settle(request_id, 10, 7) == 26  # 25.5, rounded half-up
    row = usage_row(books, request_id)
    assert (row["service_tier"], row["multiplier_ppm"]) == ("priority", 1_500_000)
    books.assert_clean()
    books.settle(books.hold(1, 1), 1, 1)
    assert books.one("SELECT count(*) FROM usage WHERE multiplier_ppm IS NULL") == 1


@pytest.mark.parametrize(("prompt", "over"), [(29, None), (30, None), (31, 1)])
def test_a_hold_is_marked_where_caps_alone_bound_it(books, prompt, over):
    """R6: to the nano-dollar; what credit covers is no debt in the making."""
    books.grant(30)
    operations.set_team(books.conn, "acme", overage="postpaid", actor="test", now_ms=books.now_ms)
    books.hold(prompt, 0)
    assert books.one("SELECT postpaid FROM holds") == over
    books.assert_clean()


def test_a_request_that_used_all_of_its_hold_is_no_bug(books, caplog):
    """R4"""
    books.grant(30)
    assert books.settle(books.hold(10, 20), 10, 20) == 30
    assert caplog.records == []


def test_what_resolves_or_bills_is_synced_and_what_began_is_not():
    """A power cut may take back a hold, whose request died with it, and the alert of a refusal; no settlement."""
    assert [c.durable for c in (OpenHold, AlertRefusal, SettleHold, VoidHold)] == [False, False, True, True]


def test_a_second_resolution_says_what_became_of_the_first(books):
    books.grant(30)
    request_id = books.hold(10, 20)
    books.settle(request_id, 1, 1)
    with pytest.raises(HoldResolvedError, match="its hold is settled already"):
        books.settle(request_id, 1, 1)


@pytest.mark.parametrize(("tokens", "alerts"), [(0, 0), (1, 2), (2, 2)])
def test_only_what_costs_something_alerts(books, tokens, alerts):
    """R7: one nano-dollar of a budget of none but that crosses its lines; nothing crosses nothing."""
    books.grant(1_000)
    operations.set_budget(books.conn, "acme", 2, "month", actor="test", now_ms=books.now_ms)
    books.alert((1, 50), 0)
    books.settle(books.hold(2, 0), tokens, 0)
    assert books.one("SELECT count(*) FROM alerts") == alerts
