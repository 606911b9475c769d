"""Units of budgets: money, tokens and compute time (BILLING R7); their texts for people and on the command line."""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec

from inferd.errors import InvalidValueError
from inferd.money import display_usd
from inferd.plans import Unit

MAX_TOKENS = 10**15
MAX_COMPUTE_MS = 10**15

_TOKENS = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMB]?)")
_THOUSANDS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


class Amounts(msgspec.Struct, frozen=True):
    """An amount in each unit: of a hold, what the request can use at most; of a settlement, what it used."""

    nanousd: int = 0
    tokens: int = 0
    compute_ms: int = 0

    def of(self, unit: Unit) -> int:
        """Return the amount in a unit; of `usd` in nano-USD."""
        if unit == "usd":
            return self.nanousd
        return self.tokens if unit == "tokens" else self.compute_ms


def display_amount(unit: Unit, amount: int) -> str:
    """Return `$1.50`, `2,000,000 tokens` or `600 s`; an amount of `usd` is in nano-USD."""
    if unit == "usd":
        return display_usd(amount)
    if unit == "tokens":
        return f"{amount:,} token{'' if amount == 1 else 's'}"
    seconds, ms = divmod(amount, 1_000)
    return f"{seconds:,}.{ms:03d}".rstrip("0").rstrip(".") + " s" if ms else f"{seconds:,} s"


def parse_tokens(text: str) -> int:
    """Return the number of tokens of `500000`, `500k`, `2M` or `1.5B`. Raises InvalidValueError."""
    found = _TOKENS.fullmatch(text)
    return _whole(text, found and (found[1], _THOUSANDS[found[2]]), "a number of tokens: write 500000, 500k or 2M")


def parse_duration_ms(text: str) -> int:
    """Return the milliseconds of `600s`, `90m`, `2h` or `500ms`. Raises InvalidValueError."""
    found = _DURATION.fullmatch(text)
    return _whole(text, found and (found[1], _MS[found[2]]), "a compute time: write 600s, 90m or 2h")


def _whole(text: str, found: tuple[str, int] | None, needed: str) -> int:
    amount = None if found is None else Decimal(found[0]) * found[1]
    if amount is None or amount != int(amount):
        raise InvalidValueError(f"{text!r} is not {needed}")
    return int(amount)
