"""Amounts on the command line, and the options of commands that move money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from inferd.errors import InvalidValueError
from inferd.money import display_usd, parse_usd

RequiredReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the books. Always needed.")]

IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        show_default=False,
        help="Any text that is new for each such command of the team. The same command again with the same key gives "
        "the same answer and moves nothing more, so a script can repeat it safely.",
    ),
]


def amount_nanousd(usd: str) -> int:
    """Raises InvalidValueError unless it is an amount in USD with at most 9 decimals."""
    try:
        return parse_usd(usd)
    except ValueError as exc:
        raise InvalidValueError(str(exc)) from exc


def budgets_text(budgets: Mapping[str, str]) -> str:
    """`$50.00 a month`, for a table; empty for none."""
    return ", ".join(f"{usd_text(usd)} {'in all' if by == 'lifetime' else f'a {by}'}" for by, usd in budgets.items())


def usd_text(usd: str) -> str:
    """`$0.10` of `0.100000000`: for a person, an amount of a record, which programs read."""
    return display_usd(parse_usd(usd))
