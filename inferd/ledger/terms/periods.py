"""Periods and dates: always UTC, always half-open (BILLING, "Periods and dates")."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from inferd.errors import InvalidValueError
from inferd.instants import DAY_MS, FIRST_YEAR

LIFETIME = "lifetime"
# In the order of `periods_of`.
_KINDS = ("month", "year", "lifetime")
# The last one whose end can be told: 9999 is the last year of a datetime.
_LAST_YEAR = 9998


def periods_of(at_ms: int) -> tuple[str, str, str]:
    """The month, the year and the lifetime that a moment counts in: `("2026-11", "2026", "lifetime")`."""
    return _periods_of_day(at_ms // DAY_MS)


@lru_cache(maxsize=64)
def _periods_of_day(day: int) -> tuple[str, str, str]:
    """`day`: whole days since 1970. Asked for several times a request, and nearly always for today."""
    moment = datetime.fromtimestamp(day * DAY_MS // 1000, UTC)
    return f"{moment.year:04d}-{moment.month:02d}", f"{moment.year:04d}", LIFETIME


def period_label(kind: str, at_ms: int) -> str:
    """The month, year or lifetime (`kind`) that a moment lies in."""
    return periods_of(at_ms)[_KINDS.index(kind)]


@lru_cache(maxsize=64)
def period_bounds_ms(period: str) -> tuple[int, int | None]:
    """The first moment of `2026-11`, `2026` or `lifetime`, and the first one after it (None: never)."""
    if period == LIFETIME:
        return 0, None
    year, _, month = period.partition("-")
    if not month:
        return _utc_ms(int(year), 1), _utc_ms(int(year) + 1, 1)
    following = (int(year) + 1, 1) if month == "12" else (int(year), int(month) + 1)
    return _utc_ms(int(year), int(month)), _utc_ms(*following)


def parse_month(text: str) -> str:
    """`2026-11`. Raises InvalidValueError if it is no month."""
    try:
        moment = datetime.strptime(text.strip(), "%Y-%m").replace(tzinfo=UTC)
    except ValueError as exc:
        raise InvalidValueError(f"{text!r} is not a month: write 2026-11") from exc
    if not FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise InvalidValueError(f"{text!r} lies outside the years {FIRST_YEAR} to {_LAST_YEAR}")
    return f"{moment.year:04d}-{moment.month:02d}"


def _utc_ms(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000
