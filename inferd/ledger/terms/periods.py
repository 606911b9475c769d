"""Periods: UTC days, ISO weeks, months, years and the lifetime, all half-open (BILLING, "Periods and dates")."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import lru_cache

from inferd.errors import InvalidValueError
from inferd.instants import DAY_MS, FIRST_YEAR
from inferd.plans import PeriodKind

LIFETIME = "lifetime"
_WEEK_DAYS = 7
# A datetime has no year 10000, in which 9999 would end.
_LAST_YEAR = 9998


def periods_of(at_ms: int) -> tuple[str, str, str]:
    """Return the month, the year and the lifetime of a moment: `("2026-11", "2026", "lifetime")`."""
    return _periods_of_day(at_ms // DAY_MS)


@lru_cache(maxsize=64)
def _periods_of_day(day: int) -> tuple[str, str, str]:
    """`day`: whole days since 1970. Cached: a request asks several times, nearly always for today."""
    moment = datetime.fromtimestamp(day * DAY_MS // 1000, UTC)
    return f"{moment.year:04d}-{moment.month:02d}", f"{moment.year:04d}", LIFETIME


def period_label(kind: PeriodKind, at_ms: int) -> str:
    """Return the period of a kind that a moment lies in: `2026-11-30`, `2026-W49`, `2026-11`, `2026` or `lifetime`."""
    month, year, lifetime = periods_of(at_ms)
    if kind in ("day", "week"):
        day, week = _day_and_week(at_ms // DAY_MS)
        return day if kind == "day" else week
    return {"month": month, "year": year}.get(kind, lifetime)


@lru_cache(maxsize=64)
def _day_and_week(day: int) -> tuple[str, str]:
    moment = datetime.fromtimestamp(day * DAY_MS // 1000, UTC).date()
    year, week, _ = moment.isocalendar()
    return moment.isoformat(), f"{year:04d}-W{week:02d}"


def period_kind(period: str) -> PeriodKind:
    """Return the kind of a period, given its label."""
    if period == LIFETIME:
        return "lifetime"
    if "W" in period:
        return "week"
    kinds: tuple[PeriodKind, ...] = ("year", "month", "day")
    return kinds[period.count("-")]


@lru_cache(maxsize=64)
def period_bounds_ms(period: str) -> tuple[int, int | None]:
    """Return the first moment of a period, given its label, and the first one after it (None: never)."""
    kind = period_kind(period)
    if kind == "lifetime":
        return 0, None
    if kind == "day":
        begin_ms = _day_ms(date.fromisoformat(period))
        return begin_ms, begin_ms + DAY_MS
    if kind == "week":
        year, _, week = period.partition("-W")
        begin_ms = _day_ms(date.fromisocalendar(int(year), int(week), 1))
        return begin_ms, begin_ms + _WEEK_DAYS * DAY_MS
    year, _, month = period.partition("-")
    if not month:
        return _utc_ms(int(year), 1), _utc_ms(int(year) + 1, 1)
    following = (int(year) + 1, 1) if month == "12" else (int(year), int(month) + 1)
    return _utc_ms(int(year), int(month)), _utc_ms(*following)


def days_of(period: str) -> tuple[int, ...]:
    """Return the first moments of the days of a day or week."""
    begin_ms, end_ms = period_bounds_ms(period)
    assert end_ms is not None, "a lifetime has no end"
    return tuple(range(begin_ms, end_ms, DAY_MS))


def week_start_ms(at_ms: int) -> int:
    """Return the first moment of the ISO week of a moment, a Monday."""
    return period_bounds_ms(period_label("week", at_ms))[0]


def parse_month(text: str) -> str:
    """Return `2026-11`. Raises InvalidValueError if the text is no month."""
    try:
        moment = datetime.strptime(text.strip(), "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidValueError(f"{text!r} is not a month: write 2026-11") from error
    if not FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise InvalidValueError(f"{text!r} lies outside the years {FIRST_YEAR} to {_LAST_YEAR}")
    return f"{moment.year:04d}-{moment.month:02d}"


def _utc_ms(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000


def _day_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
