"""Usage, grouped in every way, by the time of admission."""

from __future__ import annotations

from typing import get_args

import pytest

from inferd.attribution import Attribution
from inferd.errors import NotFoundError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.credit.refunds import refund_request
from inferd.ledger.maintenance.retention import RollUpUsage
from inferd.ledger.reports.usage import GROUPS, usage_report
from inferd.ledger.requests.usage import RecordFree
from inferd.money import parse_usd
from inferd.usage import GroupBy, Usage

SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "compute_ms")


@pytest.fixture
def used(books):
    """Two days: on the first a request that is settled on the second; a void one; a free one; another team's."""
    books.grant(10_000)
    books.now_ms = parse_instant_ms("2026-11-20T23:59:59.999Z")
    late = books.hold(10, 20, request_id="late")
    failed = books.hold(1, 2, request_id="failed")
    books.now_ms += 1
    books.settle(late, usage=Usage(10, 4, 5, 100))
    books.apply(books.void(failed))
    books.settle(books.hold(3, 4, request_id="second", deployment="local/b"), usage=Usage(3, 0, 1, 10))
    operations.create_team(books.conn, "lab", by=operations.Author("test", 1))
    key = operations.create_key(books.conn, "lab", by=operations.Author("test", 1))
    books.apply(
        RecordFree(
            request_id="free",
            attribution=Attribution("lab", "inference", None, key.id, "local/free", "default"),
            usage=Usage(7, 0, 8, 9),
            status="cancelled",
            admitted_at_ms=books.now_ms + 1,
            finished_at_ms=books.now_ms + 2,
        )
    )
    books.lab_key = key
    return books


def shown(report):
    return {"rows": list(report.rows), "total": report.total}


def test_usage_by_model(used):
    assert shown(usage_report(used.conn, "model")) == {
        "rows": [
            {
                "model": "local/b",
                "requests": 1,
                "prompt_tokens": 3,
                "cached_tokens": 0,
                "completion_tokens": 1,
                "compute_ms": 10,
                "cost_usd": "0.000000004",
                "refunded_usd": "0.000000000",
                "net_usd": "0.000000004",
            },
            {
                "model": "local/free",
                "requests": 1,
                "prompt_tokens": 7,
                "cached_tokens": 0,
                "completion_tokens": 8,
                "compute_ms": 9,
                "cost_usd": "0.000000000",
                "refunded_usd": "0.000000000",
                "net_usd": "0.000000000",
            },
            {
                "model": "local/tiny",
                "requests": 2,
                "prompt_tokens": 10,
                "cached_tokens": 4,
                "completion_tokens": 5,
                "compute_ms": 100,
                "cost_usd": "0.000000015",
                "refunded_usd": "0.000000000",
                "net_usd": "0.000000015",
            },
        ],
        "total": {
            "requests": 4,
            "prompt_tokens": 20,
            "cached_tokens": 4,
            "completion_tokens": 14,
            "compute_ms": 119,
            "cost_usd": "0.000000019",
            "refunded_usd": "0.000000000",
            "net_usd": "0.000000019",
        },
    }


def test_usage_belongs_to_the_day_of_admission(used):
    """R7"""
    days = {row["day"]: row["requests"] for row in usage_report(used.conn, "day").rows}
    assert days == {"2026-11-20": 2, "2026-11-21": 2}


def test_usage_by_request_has_a_status_and_the_order_of_admission(used):
    rows = usage_report(used.conn, "request").rows
    assert [(row["request"], row["status"], row["cost_usd"]) for row in rows] == [
        ("failed", "failed", "0.000000000"),
        ("late", "completed", "0.000000015"),
        ("second", "completed", "0.000000004"),
        ("free", "cancelled", "0.000000000"),
    ]
    assert "status" not in usage_report(used.conn, "model").rows[0]


def test_usage_by_key_and_team(used):
    assert {row["key"] for row in usage_report(used.conn, "key").rows} == {used.key.id, used.lab_key.id}
    assert [row["team"] for row in usage_report(used.conn, "team").rows] == ["acme", "lab"]


def test_usage_by_project_user_and_service_tier(books):
    """R9"""
    operations.create_member(books.conn, "project", "acme", "search", by=operations.Author("test", 1))
    operations.create_member(books.conn, "user", "acme", "ada", by=operations.Author("test", 1))
    books.grant(100)
    books.settle(books.hold(1, 5, project="search", user="ada"), 1, 2)
    books.settle(books.hold(1, 5), 1, 1)
    nets = {by: {row[by]: row["net_usd"][-1] for row in usage_report(books.conn, by).rows} for by in GROUPS}
    assert nets["project"] == {"acme/inference": "2", "acme/search": "3"}
    assert nets["user"] == {None: "2", "acme/ada": "3"}
    assert nets["service_tier"] == {"default": "5"}


@pytest.mark.parametrize("by", GROUPS)
def test_a_refund_counts_where_its_request_does(used, by):
    """R19"""
    before = usage_report(used.conn, by)
    refund_request(used.conn, "late", 7, reason="slow", actor="test", now_ms=used.now_ms + 10**9)
    after = usage_report(used.conn, by)
    assert [row[by] for row in after.rows] == [row[by] for row in before.rows]
    assert [row["cost_usd"] for row in after.rows] == [row["cost_usd"] for row in before.rows]
    assert (after.total["refunded_usd"], after.total["net_usd"]) == ("0.000000007", "0.000000012")
    assert [row["refunded_usd"] for row in after.rows if row["refunded_usd"] != "0.000000000"] == ["0.000000007"]
    assert sum(parse_usd(row["net_usd"]) for row in after.rows) == 12


@pytest.mark.parametrize("by", GROUPS)
def test_rolling_up_keeps_every_sum_under_every_grouping(used, by):
    refund_request(used.conn, "late", 7, reason="slow", actor="test", now_ms=used.now_ms)
    before = usage_report(used.conn, by)
    held_ms = parse_instant_ms("2026-11-21") + 1
    assert RollUpUsage(held_ms, used.now_ms).apply(used.conn) == 3
    after = usage_report(used.conn, by)
    assert after.total == before.total
    if by != "request":
        assert after.rows == before.rows
    else:
        assert [(row["request"], row["requests"], row["status"]) for row in after.rows] == [
            (None, 3, None),
            ("free", 1, "cancelled"),
        ]


def test_since_and_until_are_half_open(used):
    midnight = parse_instant_ms("2026-11-21")
    before = usage_report(used.conn, "request", until_ms=midnight)
    after = usage_report(used.conn, "request", since_ms=midnight)
    assert [row["request"] for row in before.rows] == ["failed", "late"]
    assert [row["request"] for row in after.rows] == ["second", "free"]
    between = usage_report(used.conn, "request", since_ms=midnight, until_ms=midnight + 1)
    assert [row["request"] for row in between.rows] == ["second"]


def test_usage_of_one_team(used):
    assert [row["request"] for row in usage_report(used.conn, "request", team="lab").rows] == ["free"]
    assert usage_report(used.conn, "model", team="lab").total["completion_tokens"] == 8
    with pytest.raises(NotFoundError):
        usage_report(used.conn, "model", team="nobody")


@pytest.mark.parametrize("by", GROUPS)
def test_every_grouping_has_the_same_sums(used, by):
    report = usage_report(used.conn, by)
    for name in SUMS:
        assert sum(row[name] for row in report.rows) == report.total[name]
    assert sum(parse_usd(row["cost_usd"]) for row in report.rows) == parse_usd(report.total["cost_usd"]) == 19


def test_nothing_used_is_a_total_of_zeros(books):
    assert shown(usage_report(books.conn, "model")) == {
        "rows": [],
        "total": {**dict.fromkeys(SUMS, 0), **dict.fromkeys(("cost_usd", "refunded_usd", "net_usd"), "0.000000000")},
    }


def test_every_group_of_a_report_has_a_column():
    assert get_args(GroupBy) == GROUPS
