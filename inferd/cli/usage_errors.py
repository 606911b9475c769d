"""Wrong usage in plain words: the value, what is allowed, and the nearest right word."""

from __future__ import annotations

import difflib
import re
from typing import Any

import typer
from typer.core import TyperGroup

# Typer has a copy of click, and does not export the base of all errors of usage.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]
_QUOTED = re.compile(r"'([^']*)'")
_NUMBER_ERRORS = {
    "int_parsing": "{input!r} is not a whole number such as 7",
    "greater_than_equal": "{input} is too small: the least is {ge}",
    "less_than_equal": "{input} is too large: the most is {le}",
}


class PlainGroup(TyperGroup):
    """The root of all commands: rewrites the messages of wrong usage, theirs too."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the type is of Typer's copy of click, which differs by version
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _plain(error)
            raise
        except _UsageError as error:
            # No option begins with a digit: `-5` is meant as an amount or a number.
            if re.match(r"-[0-9.]", getattr(error, "option_name", "")) is None:
                raise
            command = error.ctx.command_path
            remedy = "; `inferd credits withdraw` takes credit back" if command.endswith("credits grant") else ""
            raise typer.BadParameter(f"an amount or a number cannot be negative{remedy}", ctx=error.ctx) from error


def _plain(error: typer.BadParameter) -> str:
    """Its message without the words of the library that checked the value."""
    cause: Any = error.__cause__
    if hasattr(cause, "errors"):  # of pydantic, which Typer checks numbers with
        (first, *_) = cause.errors()
        template = _NUMBER_ERRORS.get(first["type"])
        if template is not None:
            return template.format(input=first["input"], **first.get("ctx", {}))
    message = error.message.removeprefix("Value error, ")
    if "is not one of" not in message:
        return message
    value, *known = _QUOTED.findall(message)
    near = difflib.get_close_matches(value, known, n=1)
    return f"{message.rstrip('.')}; did you mean {near[0]!r}?" if near else message
