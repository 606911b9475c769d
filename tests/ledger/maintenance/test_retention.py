"""Retention: every sum stays under every grouping, every entry stays, and the ledger balances."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.attribution import Attribution
from inferd.errors import IdempotencyConflictError, NotFoundError
from inferd.instants import DAY_MS
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.identity import teams
from inferd.ledger.identity.teams import Member
from inferd.ledger.maintenance.retention import RollUpUsage, cutoff_ms
from inferd.ledger.reports.export import export_lines
from inferd.ledger.reports.usage import GROUPS, usage_report
from inferd.ledger.requests.usage import RecordFree
from inferd.price import Price
from inferd.usage import Usage
from tests.e2e.refold import Export
from tests.ledger.audit.test_run import tamper
from tests.ledger.books import NOW_MS, memory_books
from tests.ledger.every_record import move_everything

MIDNIGHT_MS = NOW_MS // DAY_MS * DAY_MS


def populated(moments):
    """A request for each (ms after midnight, kind), by two projects, keys, users, models and tiers."""
    books = memory_books()
    books.grant(10**9)
    teams.add_member(books.conn, Member("project", "acme", "film", 1, "test"))
    teams.add_member(books.conn, Member("user", "acme", "ada", 1, "test"))
    other = operations.create_key(
        books.conn, "acme", operations.KeyRequest(project="film", user="ada"), by=operations.Author("test", NOW_MS)
    )
    for number, (after_ms, kind) in enumerate(moments):
        at_ms = MIDNIGHT_MS + after_ms
        who = {"project": "film", "user": "ada", "key_id": other.id} if number % 3 else {}
        if kind == "free":
            attribution = Attribution("acme", "inference", None, books.key.id, "local/free", "default")
            usage = Usage(number, 0, 2, 3)
            attribution = msgspec.structs.replace(attribution, **who)
            books.apply(RecordFree(f"free-{number}", attribution, usage, "completed", at_ms, at_ms + 5))
            continue
        price = Price(3_333, 7_777)
        tier = ("default", "priority")[number % 2]
        model = ("local/a", "local/b")[number % 2]
        request_id = books.hold(
            *(50, 50), admitted_at_ms=at_ms, price=price, deployment=model, service_tier=tier, **who
        )
        if kind == "settled":
            books.settle(request_id, usage=Usage(50, number % 50, 7, 11), finished_at_ms=at_ms + 9)
        elif kind == "void":
            books.apply(books.void(request_id))
    return books


def reports(books):
    """By everything but single requests, whole and cut at midnights."""
    found = {}
    for by in (group for group in GROUPS if group != "request"):
        for since_ms in (None, MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS):
            for until_ms in (None, MIDNIGHT_MS + DAY_MS):
                if None in (since_ms, until_ms) or since_ms < until_ms:
                    found[by, since_ms, until_ms] = usage_report(books.conn, by, since_ms=since_ms, until_ms=until_ms)
    return found


@given(
    moments=st.lists(
        st.tuples(st.integers(0, 3 * DAY_MS), st.sampled_from(["settled", "settled", "void", "free", "open"])),
        max_size=12,
    ),
    days=st.integers(0, 4),
    max_rows=st.integers(1, 5),
)
def test_roll_up_changes_no_sum(moments, days, max_rows):
    books = populated(moments)
    before, entries = reports(books), books.conn.execute("SELECT * FROM entries").fetchall()
    counters = books.conn.execute("SELECT * FROM counters").fetchall()
    before_ms = MIDNIGHT_MS + days * DAY_MS
    rolled = 0
    while taken := books.apply(RollUpUsage(before_ms, NOW_MS, max_rows)):
        rolled += taken
    assert books.one("SELECT count(*) FROM usage WHERE admitted_at_ms < ?", before_ms) == 0
    assert books.one("SELECT coalesce(sum(requests), 0) FROM usage_daily") == rolled
    assert reports(books) == before
    assert books.conn.execute("SELECT * FROM entries").fetchall() == entries
    assert books.conn.execute("SELECT * FROM counters").fetchall() == counters
    books.assert_clean()
    books.conn.close()


@pytest.fixture
def rolled():
    books = populated([(0, "settled"), (1, "void"), (2, "free"), (3, "open"), (DAY_MS, "settled")])
    books.apply(RollUpUsage(MIDNIGHT_MS + DAY_MS, NOW_MS))
    books.assert_clean()
    yield books
    books.conn.close()


def test_roll_up_leaves_open_holds_and_later_rows(rolled):
    assert rolled.one("SELECT count(*) FROM holds") == 2
    assert rolled.one("SELECT count(*) FROM usage") == 1
    request_id = rolled.one("SELECT request_id FROM holds WHERE state = 'held'")
    rolled.settle(request_id, usage=Usage(50, 0, 1, 1))
    rolled.assert_clean()
    assert rolled.apply(RollUpUsage(MIDNIGHT_MS + DAY_MS, NOW_MS)) == 1
    rolled.assert_clean()


def test_usage_that_was_not_rolled_up_cannot_be_deleted(rolled):
    for table in ("usage", "holds", "usage_daily", "rollups"):
        with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
            rolled.conn.execute(f"DELETE FROM {table}")


SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "compute_ms", "cost_nanousd")


@pytest.mark.parametrize("column", [*SUMS, "day_start_ms", "team", "deployment", "service_tier", "project", "status"])
def test_changed_cell_of_a_daily_row_is_named(rolled, column):
    value = f"{column} + 86400000" if column in (*SUMS, "day_start_ms") else "'cancelled'"
    tamper(rolled, f"UPDATE usage_daily SET {column} = {value} WHERE rollup = 1 AND line = 1")
    assert ("usage_daily", "1/1") in {(finding.table, finding.row) for finding in audit(rolled.conn).findings}


def test_missing_daily_row_is_found_by_its_settlements(rolled):
    line = rolled.one("SELECT line FROM usage_daily WHERE cost_nanousd > 0")
    tamper(rolled, f"DELETE FROM usage_daily WHERE line = {line}")
    assert {finding.table for finding in audit(rolled.conn).findings} >= {"rollups", "usage_daily", "counters"}


def test_cutoff_is_a_midnight_and_keeps_the_refund_window():
    assert cutoff_ms(60, NOW_MS) == MIDNIGHT_MS - 60 * DAY_MS
    with pytest.raises(AssertionError, match="refund"):
        cutoff_ms(59, NOW_MS)


def test_refunds_statements_and_postpaid_requests_outlive_their_usage_rows(books):
    """R6, R19"""
    ids = move_everything(books)
    before = reports(books)
    assert books.apply(RollUpUsage(NOW_MS + 1, NOW_MS)) == 1
    assert reports(books) == before
    books.assert_clean()
    assert Export(export_lines(books.conn, now_ms=NOW_MS)).faults() == []
    with pytest.raises(NotFoundError):
        operations.refund_request(books.conn, ids["request"], 1, reason="late", by=operations.Author("test", NOW_MS))


def test_refund_of_a_rolled_up_request_is_refused(rolled):
    settled = rolled.one("SELECT request_id FROM transactions WHERE kind = 'settlement' ORDER BY txn LIMIT 1")
    for request_id, problem in (
        (settled, "rolled up into daily rows .* grant credit to its team"),
        ("none", "no ended"),
    ):
        with pytest.raises(NotFoundError, match=problem):
            operations.refund_request(rolled.conn, request_id, 1, reason="late", by=operations.Author("test", NOW_MS))


def test_repeated_refund_after_a_roll_up_has_its_first_answer(books):
    """R22: answers are kept for ever."""
    books.grant(100)
    request = books.hold(10)
    books.settle(request, 10)
    again = {"reason": "slow", "idempotency_key": "k", "by": operations.Author("test", NOW_MS)}
    first = operations.refund_request(books.conn, request, 3, **again)
    books.apply(RollUpUsage(NOW_MS + 1, NOW_MS))
    before = books.dump()
    assert operations.refund_request(books.conn, request, 3, **again) == first
    with pytest.raises(IdempotencyConflictError):
        operations.refund_request(books.conn, request, 4, **again)
    with pytest.raises(NotFoundError, match="rolled up"):
        operations.refund_request(books.conn, request, 3, **again | {"idempotency_key": "other"})
    assert books.dump() == before
