"""Periods and dates: always UTC, always half-open (BILLING, "Periods and dates")."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from inferd.errors import InvalidValueError

LIFETIME = "lifetime"
# In the order of `periods_of`.
_KINDS = ("month", "year", "lifetime")
_DAY_MS = 86_400_000
_FIRST_YEAR = 1970
# The last one whose end can be told: 9999 is the last year of a datetime.
_LAST_YEAR = 9998


def periods_of(at_ms: int) -> tuple[str, str, str]:
    """The month, the year and the lifetime that a moment counts in: `("2026-11", "2026", "lifetime")`."""
    return _periods_of_day(at_ms // _DAY_MS)


@lru_cache(maxsize=64)
def _periods_of_day(day: int) -> tuple[str, str, str]:
    """`day`: whole days since 1970. Asked for several times a request, and nearly always for today."""
    moment = datetime.fromtimestamp(day * _DAY_MS // 1000, UTC)
    return f"{moment.year:04d}-{moment.month:02d}", f"{moment.year:04d}", LIFETIME


def parse_instant_ms(text: str) -> int:
    """Milliseconds since 1970 of `2026-11-21` (00:00 UTC) or of an ISO 8601 date and time (UTC unless it says other).

    Raises:
        InvalidValueError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        # Of a moment with an offset, the year that counts is the one in UTC.
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidValueError(
            f"{text!r} is not a date: write 2026-11-21 (00:00 UTC of that day) or 2026-11-21T18:30:00Z"
        ) from exc
    if moment.year < _FIRST_YEAR:
        raise InvalidValueError(f"{text!r} lies before {_FIRST_YEAR}")
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def format_instant(at_ms: int) -> str:
    """`2026-11-21T18:30:00.000Z`, the form in which reports and messages show a moment."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ms % 1000:03d}Z"


def display_instant(at_ms: int) -> str:
    """`2026-11-21 18:30`, UTC: a moment in a table for people."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M")


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
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise InvalidValueError(f"{text!r} lies outside the years {_FIRST_YEAR} to {_LAST_YEAR}")
    return f"{moment.year:04d}-{moment.month:02d}"


def _utc_ms(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000
