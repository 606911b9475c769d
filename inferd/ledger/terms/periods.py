"""Periods: UTC months, years and the lifetime, all half-open (BILLING, "Periods and dates")."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from inferd.errors import InvalidValueError
from inferd.instants import DAY_MS, FIRST_YEAR

LIFETIME = "lifetime"
# In the order of `periods_of`.
_KINDS = ("month", "year", "lifetime")
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


def period_label(kind: str, at_ms: int) -> str:
    """Return the month, year or lifetime (`kind`) of a moment."""
    return periods_of(at_ms)[_KINDS.index(kind)]


@lru_cache(maxsize=64)
def period_bounds_ms(period: str) -> tuple[int, int | None]:
    """Return the first moment of `2026-11`, `2026` or `lifetime`, and the first one after it (None: never)."""
    if period == LIFETIME:
        return 0, None
    year, _, month = period.partition("-")
    if not month:
        return _utc_ms(int(year), 1), _utc_ms(int(year) + 1, 1)
    following = (int(year) + 1, 1) if month == "12" else (int(year), int(month) + 1)
    return _utc_ms(int(year), int(month)), _utc_ms(*following)


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
