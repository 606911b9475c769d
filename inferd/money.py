"""Amounts in nano-USD, and their texts. Amounts are integers, never floats."""

from __future__ import annotations

import re

NANOUSD_PER_USD = 1_000_000_000
_AMOUNT = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]{1,9}))?")


def format_usd(nanousd: int) -> str:
    """Return `"1.500000000"` for `1500000000`: a decimal string with 9 decimals, exact in both directions."""
    sign = "-" if nanousd < 0 else ""
    whole, rest = divmod(abs(nanousd), NANOUSD_PER_USD)
    return f"{sign}{whole}.{rest:09d}"


def display_usd(nanousd: int) -> str:
    """Return `"$6,000.00"` for `6000000000000`: an amount for people, with at least 2 decimals and no other zeros."""
    sign = "-" if nanousd < 0 else ""
    whole, rest = divmod(abs(nanousd), NANOUSD_PER_USD)
    return f"{sign}${whole:,}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"


def parse_usd(text: str) -> int:
    """Return `1500000000` for `"1.5"`.

    Raises:
        ValueError: `text` is no unsigned decimal in ASCII digits with at most 9 decimals and no leading zeros.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount in USD: write digits with at most 9 decimals, such as 12.50")
    whole, fraction = match.groups()
    return int(whole) * NANOUSD_PER_USD + int((fraction or "").ljust(9, "0"))
