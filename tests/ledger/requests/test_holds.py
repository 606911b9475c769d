"""Tests of holds: opened within the credit and the caps of a team, or refused with a remedy."""

from __future__ import annotations

import pytest

from inferd.attribution import Attribution
from inferd.errors import InsufficientCreditError
from inferd.ledger import operations
from inferd.ledger.requests.holds import Hold
from inferd.ledger.requests.usage import RecordFree
from inferd.usage import Usage


def test_hold_reserves_the_worst_case(books):
    """R4"""
    books.grant(100)
    hold = books.apply(books.open_hold(10, 20, request_id="r"))
    assert hold == Hold("r", 30, None)
    credit = books.credit()
    assert (credit.balance_nanousd, credit.held_nanousd, credit.available_nanousd) == (100, 30, 70)


def test_credit_for_k_requests_admits_exactly_k(books):
    """R4: all are admitted before the first ends."""
    books.grant(3 * 30 + 29)
    for _ in range(3):
        books.hold(10, 20)
    for _ in range(2):
        with pytest.raises(InsufficientCreditError):
            books.hold(10, 20)
    assert books.credit().available_nanousd == 29


def test_hold_takes_the_last_nano_usd_and_not_one_more(books):
    """R4"""
    books.grant(30)
    with pytest.raises(InsufficientCreditError):
        books.hold(10, 21)
    books.hold(10, 20)
    assert books.credit().available_nanousd == 0


def test_refusal_names_cost_available_credit_and_the_largest_max_tokens(books):
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
def test_refusal_names_that_no_max_tokens_fits(books, credit):
    """R4: the prompt alone is too much, or takes all there is."""
    books.grant(credit)
    with pytest.raises(InsufficientCreditError, match="not even one completion token is covered"):
        books.hold(10, 1)


def test_refusal_of_inputs_alone_names_no_completion(books):
    """R4: embeddings and scores."""
    books.grant(5)
    with pytest.raises(InsufficientCreditError) as refusal:
        books.hold(10, 0)
    assert "(10 prompt tokens), but" in refusal.value.message
    assert "fewer or shorter inputs at once would take less." in refusal.value.message
    assert "completion" not in refusal.value.message


def test_refusal_for_held_credit_has_a_retry_after(books):
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


def test_refusal_for_held_credit_that_exactly_suffices_has_a_retry_after(books):
    """R4"""
    books.grant(30)
    books.hold(0, 1)
    with pytest.raises(InsufficientCreditError) as refusal:
        books.hold(10, 20)
    assert refusal.value.code == "in_flight_budget_exhausted"
    with pytest.raises(InsufficientCreditError) as refusal:
        books.hold(10, 21)
    assert refusal.value.code == "credit_balance_exhausted"


def test_refused_hold_changes_nothing(books):
    """R4"""
    books.grant(5, expires_at_ms=books.now_ms + 1)
    books.now_ms += 1
    before = books.dump()
    with pytest.raises(InsufficientCreditError):
        books.hold(10, 20)
    assert books.dump() == before


def test_free_request_needs_no_credit_and_writes_a_usage_row_at_cost_zero(books):
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
    row = books.usage_row("free-1")
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"], row["cost_nanousd"]) == (8, 2, 3, 0)
    assert (row["input_picousd"], row["output_picousd"], row["finish_reason"]) == (None, None, "length")
    assert books.one("SELECT sum(posted_nanousd) FROM counters") == 0
    assert books.one("SELECT count(*) FROM holds") == 0


@pytest.mark.parametrize(("prompt", "over"), [(29, None), (30, None), (31, 1)])
def test_hold_beyond_the_credit_is_marked_postpaid(books, prompt, over):
    """R6: to the nano-dollar; what credit covers is no debt in the making."""
    books.grant(30)
    operations.set_team(
        books.conn, "acme", operations.TeamChange(overage="postpaid"), by=operations.Author("test", books.now_ms)
    )
    books.hold(prompt, 0)
    assert books.one("SELECT postpaid FROM holds") == over
    books.assert_clean()
