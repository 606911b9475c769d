"""Periods and dates are UTC and half-open."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inferd.errors import InvalidValueError
from inferd.ledger.periods import format_instant, parse_instant_ms, periods_of


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


def test_a_moment_counts_in_its_utc_month_and_year():
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
def test_a_date_without_a_time_is_midnight_utc(text, expected):
    """R8"""
    assert parse_instant_ms(text) == expected


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "21.11.2026", "1969-12-31", "0001-01-01"])
def test_what_is_no_date_is_refused_with_an_example(text):
    with pytest.raises(InvalidValueError, match=r"2026-11-21|1970"):
        parse_instant_ms(text)


def test_a_moment_is_shown_to_the_millisecond():
    assert format_instant(ms(2026, 11, 21, 18, 30, 5) + 7) == "2026-11-21T18:30:05.007Z"
