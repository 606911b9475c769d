"""Tests of periods and instants: UTC and half-open."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inferd.errors import InvalidValueError
from inferd.instants import format_instant, parse_instant_ms
from inferd.ledger.terms.periods import parse_month, period_bounds_ms, periods_of


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


def test_period_of_a_moment_is_its_utc_month_and_year():
    """R7"""
    assert periods_of(ms(2026, 11, 30, 23, 59, 59) + 999) == ("2026-11", "2026", "lifetime")
    assert periods_of(ms(2026, 12, 1)) == ("2026-12", "2026", "lifetime")
    assert periods_of(ms(2027, 1, 1) - 1) == ("2026-12", "2026", "lifetime")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21", ms(2026, 11, 21)),
        ("2026-11-21T18:30:00Z", ms(2026, 11, 21, 18, 30)),
        ("2026-11-21T18:30:00", ms(2026, 11, 21, 18, 30)),
        ("2026-11-21T18:30:00.250+02:00", ms(2026, 11, 21, 16, 30) + 250),
    ],
)
def test_instant_without_a_time_is_midnight_utc(text, expected):
    """R8"""
    assert parse_instant_ms(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "tomorrow", "2026-13-01", "21.11.2026", "1969-12-31", "0001-01-01"),
        *("9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "1970-01-01T00:00:00+00:01"),
    ],
)
def test_instant_that_is_no_date_is_refused_with_an_example(text):
    with pytest.raises(InvalidValueError, match=r"2026-11-21|1970"):
        parse_instant_ms(text)


def test_instant_is_formatted_to_the_millisecond():
    assert format_instant(ms(2026, 11, 21, 18, 30, 5) + 7) == "2026-11-21T18:30:05.007Z"


def test_instant_of_the_last_date_can_be_formatted():
    assert format_instant(parse_instant_ms("9999-12-31T23:59:59.999Z")) == "9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize("month", ["1970-01", "2026-12", "9998-12"])
def test_month_has_bounds(month):
    begin_ms, end_ms = period_bounds_ms(parse_month(month))
    assert (periods_of(begin_ms)[0], periods_of(end_ms - 1)[0]) == (month, month)
    assert periods_of(begin_ms - 1)[0] != month != periods_of(end_ms)[0]


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "0000-01", "0001-01", "1969-12", "9999-12", "2026-11-01"])
def test_month_that_cannot_be_parsed_is_refused(text):
    with pytest.raises(InvalidValueError, match=r"2026-11|1970 to 9998"):
        parse_month(text)
