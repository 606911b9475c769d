"""Buckets: every grouping and every width adds up to what the usage report and the ledger say."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.ledger import operations
from inferd.ledger.credit.accounts import REFUNDS, balance_nanousd, revenue_account
from inferd.ledger.credit.refunds import refund_request
from inferd.ledger.maintenance.retention import RollUpUsage
from inferd.ledger.reports.buckets import Selection, sum_by_bucket
from inferd.ledger.reports.usage import GROUPS, usage_report
from inferd.money import parse_usd
from inferd.usage import Usage
from tests.ledger.books import NOW_MS, memory_books

DAY_MS = 86_400_000
FIELDS = ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier")
SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nanousd", "refunded_nanousd")

REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 3 * DAY_MS),
        st.sampled_from(["inference", "search"]),
        st.sampled_from([None, "ada"]),
        st.sampled_from(["local/a", "local/b"]),
        st.integers(0, 9),
        st.integers(0, 9),
        st.booleans(),
    ),
    max_size=8,
)


def books_with(requests):
    books = memory_books()
    operations.create_member(books.conn, "project", "acme", "search", by=operations.Author("test", 1))
    operations.create_member(books.conn, "user", "acme", "ada", by=operations.Author("test", 1))
    books.grant(10_000)
    for after_ms, project, user, model, prompt, completion, refunded in sorted(requests, key=str):
        books.now_ms = NOW_MS + after_ms
        request_id = books.hold(prompt, completion, project=project, user=user, deployment=model)
        cost = books.settle(request_id, usage=Usage(prompt, prompt // 2, completion, 1))
        if refunded and cost > 1:
            refund_request(books.conn, request_id, cost // 2, reason="r", actor="test", now_ms=books.now_ms)
    return books


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests=REQUESTS,
    fields=st.lists(st.sampled_from(FIELDS), unique=True),
    width_ms=st.sampled_from([60_000, 3_600_000, DAY_MS]),
    cut_ms=st.integers(0, 3 * DAY_MS),
    rolled_up=st.booleans(),
)
def test_any_grouping_in_any_two_ranges_has_the_sums_of_the_ledger(requests, fields, width_ms, cut_ms, rolled_up):
    books = books_with(requests)
    begin, cut, end = NOW_MS - DAY_MS, NOW_MS + cut_ms, NOW_MS + 4 * DAY_MS
    if rolled_up:
        RollUpUsage(NOW_MS // DAY_MS * DAY_MS + DAY_MS, end).apply(books.conn)
    found = [
        each
        for since, until in ((begin, cut), (cut, end))
        for each in sum_by_bucket(books.conn, Selection(since, until), width_ms, fields)
    ]
    totals = {name: sum(getattr(each, name) for each in found) for name in SUMS}
    for by in GROUPS:
        report = usage_report(books.conn, by).total
        assert {name: report[name] for name in SUMS[:4]} == {name: totals[name] for name in SUMS[:4]}
        assert parse_usd(report["cost_usd"]) == totals["cost_nanousd"]
        assert parse_usd(report["refunded_usd"]) == totals["refunded_nanousd"]
    revenue = sum(balance_nanousd(books.conn, revenue_account(model)) for model in ("local/a", "local/b"))
    assert totals["cost_nanousd"] == revenue
    assert totals["refunded_nanousd"] == -balance_nanousd(books.conn, REFUNDS)
    assert totals["requests"] == len(requests)
    books.conn.close()


@pytest.mark.parametrize("field", FIELDS)
def test_filters_of_one_field_split_the_whole(field):
    books = books_with(
        [
            (n * DAY_MS, p, u, m, 3, 4, False)
            for n, p, u, m in (
                (0, "inference", None, "local/a"),
                (1, "search", "ada", "local/b"),
                (2, "search", None, "local/a"),
            )
        ]
    )
    whole = Selection(NOW_MS, NOW_MS + 4 * DAY_MS)
    groups = sum_by_bucket(books.conn, whole, 10 * DAY_MS, (field,))
    assert sum(each.requests for each in groups) == 3
    for team, requests in (("acme", 3), ("nobody", 0)):
        chosen = sum_by_bucket(books.conn, Selection(whole.since_ms, whole.until_ms, team=team), 10 * DAY_MS)
        assert sum(each.requests for each in chosen) == requests
    books.conn.close()
