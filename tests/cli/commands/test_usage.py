"""`inferd usage`: groups, periods, JSON, CSV and the table."""

from __future__ import annotations

import csv
import io
from typing import get_args

import pytest

from inferd.usage import GroupBy

SUMS = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "compute_ms",
    "cost_usd",
    "refunded_usd",
    "net_usd",
)
NOTHING = "0.000000000"
OCTOBER = dict(zip(SUMS, (1, 100, 20, 7, 30, "0.000011800", NOTHING, "0.000011800"), strict=True))
FAILED = dict(zip(SUMS, (1, 0, 0, 0, 0, "0.000000000", NOTHING, "0.000000000"), strict=True))
FREE = dict(zip(SUMS, (1, 9, 0, 3, 4, "0.000000000", NOTHING, "0.000000000"), strict=True))
ALL = dict(zip(SUMS, (3, 109, 20, 10, 34, "0.000011800", NOTHING, "0.000011800"), strict=True))
PAID = dict(zip(SUMS, (2, 100, 20, 7, 30, "0.000011800", NOTHING, "0.000011800"), strict=True))
NOVEMBER = dict(zip(SUMS, (2, 9, 0, 3, 4, "0.000000000", NOTHING, "0.000000000"), strict=True))


@pytest.mark.usefixtures("used")
def test_usage_groups_by_model_by_default(inferd):
    report = {"rows": [{"model": "local/free"} | FREE, {"model": "local/paid"} | PAID], "total": ALL}
    assert inferd("usage", "--json").json == report
    assert inferd("usage", "--by", "model", "--team", "acme", "--json").json == report


@pytest.mark.usefixtures("used")
def test_usage_by_day_uses_the_day_of_admission(inferd):
    rows = inferd("usage", "--by", "day", "--json").json["rows"]
    assert rows == [{"day": "2026-10-31"} | OCTOBER, {"day": "2026-11-01"} | NOVEMBER]


def test_usage_by_key_has_a_row_for_each_key(inferd, used):
    rows = inferd("usage", "--by", "key", "--json").json["rows"]
    expected = [{"key": used["first"]} | PAID, {"key": used["second"]} | FREE]
    assert rows == sorted(expected, key=lambda row: row["key"])


@pytest.mark.usefixtures("used")
def test_usage_by_team_has_a_row_for_each_team(inferd):
    assert inferd("usage", "--by", "team", "--json").json["rows"] == [{"team": "acme"} | ALL]


@pytest.mark.usefixtures("used")
def test_usage_by_request_has_the_status(inferd):
    report = inferd("usage", "--by", "request", "--json").json
    assert report["rows"] == [
        {"request": "req-october"} | OCTOBER | {"status": "completed"},
        {"request": "req-november"} | FAILED | {"status": "failed"},
        {"request": "req-free"} | FREE | {"status": "completed"},
    ]
    assert report["total"] == ALL


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(
    ("words", "requests"),
    [
        (("--since", "2026-11-01"), ["req-november", "req-free"]),
        (("--until", "2026-11-01"), ["req-october"]),
        (("--since", "2026-11-01T00:00:00.001Z"), ["req-free"]),
        (("--since", "2026-10-31", "--until", "2026-11-01T00:00:00.002Z"), ["req-october", "req-november"]),
        (("--since", "2026-11-01T01:00:00+01:00"), ["req-november", "req-free"]),
        (("--since", "2026-11-01", "--until", "2026-11-01"), []),
    ],
)
def test_usage_range_includes_since_and_excludes_until(inferd, words, requests):
    report = inferd("usage", "--by", "request", *words, "--json").json
    assert [row["request"] for row in report["rows"]] == requests
    assert report["total"]["requests"] == len(requests)


@pytest.mark.usefixtures("used")
def test_usage_of_a_team_counts_only_that_team(inferd):
    inferd("teams", "create", "beta")
    assert inferd("usage", "--team", "beta", "--json").json == {
        "rows": [],
        "total": dict.fromkeys(SUMS, 0) | dict.fromkeys(SUMS[-3:], NOTHING),
    }
    assert inferd("usage", "--team", "beta").out == "No requests match.\n"


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("by", get_args(GroupBy))
def test_usage_csv_equals_json(inferd, by):
    made = inferd("usage", "--by", by, "--csv")
    assert made.status == 0
    assert "\r" not in made.out
    rows = inferd("usage", "--by", by, "--json").json["rows"]
    assert list(csv.DictReader(io.StringIO(made.out))) == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
    ]


@pytest.mark.usefixtures("new_ledger")
def test_usage_csv_without_requests_has_column_names(inferd):
    assert inferd("usage", "--by", "request", "--csv").out == "request," + ",".join(SUMS) + ",status\n"


@pytest.mark.usefixtures("used")
def test_usage_table_has_exact_amounts_and_a_total(inferd):
    heading, _, free, paid, _, total = inferd("usage").out.splitlines()
    assert heading.startswith("Model ")
    assert heading.endswith(" Cost")
    assert free.split() == ["local/free", "1", "9", "0", "3", "4", "$0.00"]
    assert paid.split() == ["local/paid", "2", "100", "20", "7", "30", "$0.0000118"]
    assert total.split() == ["Total", "3", "109", "20", "10", "34", "$0.0000118"]
    assert len({len(line) for line in (heading, free, paid, total)}) == 1, "the last column is aligned to the right"


@pytest.mark.usefixtures("new_ledger")
def test_usage_of_an_empty_ledger_says_so(inferd):
    assert inferd("usage").out == "No request has finished yet.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--team", "x"), "there is no team 'x'"),
        (("--since", "yesterday"), "is not a date"),
        (("--since", "2026-12-01", "--until", "2026-11-01"), "--since 2026-12-01 is after --until 2026-11-01"),
    ],
)
@pytest.mark.usefixtures("new_ledger")
def test_usage_with_inconsistent_options_is_refused(inferd, words, said):
    refused = inferd("usage", *words, "--json")
    assert (refused.status, refused.out) == (1, "")
    assert said in refused.err


@pytest.mark.parametrize("words", [("--json", "--csv"), ("--by", "hour")])
def test_usage_with_wrong_options_has_status_2(inferd, words):
    refused = inferd("usage", *words)
    assert (refused.status, refused.out) == (2, "")
