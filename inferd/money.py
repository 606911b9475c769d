"""Nano-USD as text and back. Integers only: no float ever touches an amount."""

from __future__ import annotations

import re

NANOUSD_PER_USD = 1_000_000_000
_AMOUNT = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]{1,9}))?")


def format_usd(nanousd: int) -> str:
    """`1500000000` -> `"1.500000000"`: a decimal string with 9 places, exact in both directions."""
    sign = "-" if nanousd < 0 else ""
    whole, rest = divmod(abs(nanousd), NANOUSD_PER_USD)
    return f"{sign}{whole}.{rest:09d}"


def display_usd(nanousd: int) -> str:
    """`6000000000000` -> `"$6,000.00"`: an amount for people, with two decimals and as many more as it needs."""
    sign = "-" if nanousd < 0 else ""
    whole, rest = divmod(abs(nanousd), NANOUSD_PER_USD)
    return f"{sign}${whole:,}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"


def parse_usd(text: str) -> int:
    """`"1.5"` -> `1500000000`. Raises ValueError unless it is a plain, unsigned decimal with at most 9 places: ASCII
    digits, no blanks, no leading zeros."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount in USD: write digits with at most 9 decimals, such as 12.50")
    whole, fraction = match.groups()
    return int(whole) * NANOUSD_PER_USD + int((fraction or "").ljust(9, "0"))
