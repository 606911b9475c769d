"""Reader of one TOML table, whose errors name file, table and key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from inferd.errors import ConfigError
from inferd.price import PPM

MAX_TOKENS = 2**20
"""Times 256 sequences, this fits the 32 bits in which llama.cpp counts KV cells."""

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
_MAX_PRICE_USD = 1_000_000
_USD_DECIMALS = 9


class TomlTable:
    """The table `[kind.name]`, or `[kind]` if `name` is empty.

    Args:
        keys: all keys that the table may have.

    Raises:
        ConfigError: `values` is no table, or has another key.
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
        """Return an error about the value of a key."""
        return ConfigError(f"{self.path}: {self._title} {quoted(key)}: {one_line(what)}")

    def __contains__(self, key: str) -> bool:
        assert key in self._keys, f"{key} is missing from the table's keys"
        return key in self._values

    def get(self, key: str, kind: type[_T]) -> _T | None:
        """Return the value, which must have exactly this type (a bool is no integer); None if the key is missing."""
        if key not in self:
            return None
        value = self._values[key]
        if type(value) is not kind:
            raise self.error(key, f"expected {_KINDS[kind]}, got {kind_of(value)}")
        return value

    def require(self, key: str, kind: type[_T]) -> _T:
        value = self.get(key, kind)
        if value is None:
            raise self.error(key, f"is missing: write {_KINDS[kind]}")
        return value

    def integer(self, key: str, default: _T, low: int, high: int) -> int | _T:
        """Return an integer from `low` to `high`, or `default`."""
        value = self.get(key, int)
        if value is None:
            return default
        if not low <= value <= high:
            raise self.error(key, f"must lie between {low} and {high}, got {value}")
        return value

    def items(self, key: str, kind: type[_T], default: tuple[_T, ...]) -> tuple[_T, ...]:
        """Return an array whose items all have exactly this type, or `default`."""
        values = self.get(key, list)
        if values is None:
            return default
        if not all(type(value) is kind for value in values):
            raise self.error(key, f"must be an array of {'strings' if kind is str else 'integers'}")
        return tuple(values)

    def file(self, key: str) -> Path | None:
        """Return the existing file of a path, which may be relative to the folder of models.toml."""
        text = self.get(key, str)
        return None if text is None else self.attempt(key, lambda: existing_file(text, self.folder))

    @property
    def folder(self) -> Path:
        return self.path.absolute().parent

    def attempt(self, key: str, find: Callable[[], _T]) -> _T:
        """Return the result of `find`, whose errors become errors about the value of a key."""
        try:
            return find()
        except ConfigError as error:
            raise self.error(key, error.message) from error
        except OSError as error:
            raise self.error(key, f"cannot be read: {error}") from error
        except UnicodeDecodeError as error:
            raise self.error(key, f"is not UTF-8 text: {error.reason} at byte {error.start}") from error

    def instant_ms(self, key: str) -> int | None:
        """Return the milliseconds since 1970 of a TOML date (00:00 UTC) or date-time (UTC unless it has an offset)."""
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
            raise self.error(key, f"must not be before 1970, got {value}")
        return since_1970 // timedelta(milliseconds=1)

    def usd_per_1m_tokens(self, key: str) -> int | None:
        """Return pico-USD per token: USD per 1M tokens x 10^6, exactly. None if the key is missing."""
        return self._decimal(key, _MAX_PRICE_USD, _PRICE_DECIMALS, "a price", "USD per 1M tokens")

    def usd_per_second(self, key: str) -> int | None:
        """Return pico-USD per millisecond: USD per second x 10^9, exactly. None if the key is missing."""
        microusd = self._decimal(key, _MAX_PRICE_USD, _PRICE_DECIMALS, "a price", "USD per second")
        return None if microusd is None else microusd * 1_000

    def multiplier_ppm(self, key: str, low: int, high: int) -> int | None:
        """Return millionths, exactly. None if the key is missing."""
        multiplier_ppm = self._decimal(key, high, _PRICE_DECIMALS, "a multiplier", "times the price")
        if multiplier_ppm is not None and multiplier_ppm < low * PPM:
            raise self.error(key, f"must be at least {low} times the price, got {multiplier_ppm / PPM:g}")
        return multiplier_ppm

    def nanousd(self, key: str, most_usd: int) -> int | None:
        """Return the nano-USD of an amount in USD. None if the key is missing."""
        return self._decimal(key, most_usd, _USD_DECIMALS, "an amount", "USD")

    def is_text(self, key: str, text: str) -> bool:
        """Return whether the value is this string, such as `unlimited` in place of a number."""
        return key in self and self._values[key] == text

    def _decimal(self, key: str, most: int, decimals: int, what: str, unit: str) -> int | None:
        """Return a number with at most `decimals` decimals, in units of the last one. None if the key is missing."""
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
        # Exact: the number has at most 19 digits before trailing zeros, and Decimal keeps 28.
        return int(amount * 10**decimals)


def existing_file(text: str, folder: Path) -> Path:
    """Return the absolute path of an existing file. `~` is expanded, and a relative path starts at `folder`.

    Links are not resolved: a shard of a split GGUF is found by its name, which in the Hugging Face cache is a link.

    Raises:
        ConfigError: there is no such file; the message lacks file, table and key.
    """
    if "\0" in text:
        raise ConfigError("a path cannot contain a NUL character")
    try:
        path = folder / Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"cannot expand {text!r}: {error}") from error
    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    return path.absolute()


def quoted(key: str) -> str:
    """Return a TOML key as it is written in a file. The escapes of JSON are valid in TOML."""
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def one_line(message: object) -> str:
    """Return a message without line breaks."""
    return " ".join(str(message).split())


def kind_of(value: object) -> str:
    """Return the kind of a TOML value in words."""
    return _KINDS.get(type(value), "a date or time")


def nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """Return a hint for an unknown word: the nearest known word, else all of them."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {quoted(matches[0])}?" if matches else f" (known: {', '.join(known) or 'none'})"
