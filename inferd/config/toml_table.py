"""One table of a TOML file being read: every complaint names file, table and key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from inferd.errors import ConfigError

TOKENS_MAX = 2**20
"""Most tokens that a key may name: times 256 sequences they fit the 32 bits in which llama.cpp counts cells."""

_T = TypeVar("_T")
_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "an integer",
    str: "a string",
    Decimal: "a number",
    dict: "a table",
    list: "an array",
}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PRICE_DECIMALS = 6
_PRICE_MAX_USD = 1_000_000
_USD_DECIMALS = 9


class TomlTable:
    """The table `[kind.name]`, or `[kind]` if `name` is empty.

    Args:
        keys: those that it may have.

    Raises:
        ConfigError: it is no table, or has another key.
    """

    def __init__(self, path: Path, kind: str, name: str, values: object, keys: tuple[str, ...]) -> None:
        self.path = path
        self.name = name
        self._keys = keys
        self._title = f"[{kind}.{quoted(name)}]" if name else f"[{kind}]"
        self._values: dict[str, object] = values if isinstance(values, dict) else {}
        if not isinstance(values, dict):
            where = f"[{kind}] {quoted(name)}" if name else kind
            raise ConfigError(f"{path}: {where}: expected a table, got {kind_of(values)}")
        for key in values:
            if key not in keys:
                raise self.error(key, f"unknown key{nearest(key, keys)}")

    def error(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self.path}: {self._title} {quoted(key)}: {one_line(what)}")

    def __contains__(self, key: str) -> bool:
        assert key in self._keys, f"{key} is missing from the table's keys"
        return key in self._values

    def get(self, key: str, kind: type[_T]) -> _T | None:
        """The value, of exactly this type (a bool is no integer), or None if it is not there."""
        if key not in self:
            return None
        value = self._values[key]
        if type(value) is not kind:
            raise self.error(key, f"expected {_KINDS[kind]}, got {kind_of(value)}")
        return value

    def require(self, key: str, kind: type[_T]) -> _T:
        value = self.get(key, kind)
        if value is None:
            raise self.error(key, "is missing")
        return value

    def integer(self, key: str, default: _T, low: int, high: int) -> int | _T:
        value = self.get(key, int)
        if value is None:
            return default
        if not low <= value <= high:
            raise self.error(key, f"must lie between {low} and {high}, got {value}")
        return value

    def items(self, key: str, kind: type[_T], default: tuple[_T, ...]) -> tuple[_T, ...]:
        """An array whose items are all of exactly this type."""
        values = self.get(key, list)
        if values is None:
            return default
        if not all(type(value) is kind for value in values):
            raise self.error(key, f"must be a list of {'strings' if kind is str else 'integers'}")
        return tuple(values)

    def instant_ms(self, key: str) -> int | None:
        """Milliseconds since 1970 of a TOML date (00:00 UTC) or date-time (UTC unless it has an offset)."""
        if key not in self:
            return None
        value = self._values[key]
        if type(value) is date:
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if not isinstance(value, datetime):
            raise self.error(key, f"expected a date such as 2026-12-01, without quotes, got {kind_of(value)}")
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        since_1970 = moment - datetime(1970, 1, 1, tzinfo=UTC)
        if since_1970 < timedelta():
            raise self.error(key, f"lies before 1970: {value}")
        return since_1970 // timedelta(milliseconds=1)

    def usd_per_1m_tokens(self, key: str) -> int | None:
        """Pico-USD per token: USD per 1M tokens x 10^6, exactly. None if the key is not there."""
        return self._decimal(key, _PRICE_MAX_USD, _PRICE_DECIMALS, "a price", "USD per 1M tokens")

    def usd_per_second(self, key: str) -> int | None:
        """Pico-USD per millisecond: USD per second x 10^9, exactly. None if the key is not there."""
        microusd = self._decimal(key, _PRICE_MAX_USD, _PRICE_DECIMALS, "a price", "USD per second")
        return None if microusd is None else microusd * 1_000

    def multiplier_ppm(self, key: str, low: int, high: int) -> int | None:
        """Millionths, exactly. None if the key is not there."""
        multiplier_ppm = self._decimal(key, high, _PRICE_DECIMALS, "a multiplier", "times the price")
        if multiplier_ppm is not None and multiplier_ppm < low * 10**_PRICE_DECIMALS:
            raise self.error(key, f"must be at least {low} times the price")
        return multiplier_ppm

    def nanousd(self, key: str, most_usd: int) -> int | None:
        """An amount of USD, not negative, as nano-USD. None if the key is not there."""
        return self._decimal(key, most_usd, _USD_DECIMALS, "an amount", "USD")

    def is_text(self, key: str, text: str) -> bool:
        """Whether the value is this very string, which stands for what no number says."""
        return key in self and self._values[key] == text

    def _decimal(self, key: str, most: int, decimals: int, what: str, unit: str) -> int | None:
        """A number of at most so many decimals, in units of its last one."""
        value = self._values.get(key)
        if type(value) is int:
            amount = Decimal(value)
        else:
            found = self.get(key, Decimal)
            if found is None:
                return None
            amount = found
        if not amount.is_finite():
            raise self.error(key, f"must be a finite number, got {amount}")
        if amount < 0:
            raise self.error(key, f"{what} cannot be negative, got {amount}")
        if amount > most:
            raise self.error(key, f"must be at most {most} {unit}, got {amount}")
        digits = amount.as_tuple()
        assert isinstance(digits.exponent, int), "a finite decimal has an integer exponent"
        excess = -digits.exponent - decimals
        if excess > 0 and any(digits.digits[-excess:]):
            raise self.error(key, f"must have at most {decimals} decimals, got {amount}")
        # Exact: at most 19 digits are not trailing zeros, and decimals keep 28.
        return int(amount * 10**decimals)


def quoted(key: str) -> str:
    """A TOML key as it is written in a file; JSON's escapes are TOML's."""
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def one_line(message: object) -> str:
    return " ".join(str(message).split())


def kind_of(value: object) -> str:
    return _KINDS.get(type(value), "a date or time")


def nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {quoted(matches[0])}?" if matches else f" (known: {', '.join(known) or 'none'})"
