"""What commands print: tables and sentences for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

# What a shell reports of a program that the end of its pipe killed: 128 + SIGPIPE.
BROKEN_PIPE_STATUS = 141


def write(text: str) -> None:
    """Text to stdout as it is. Ends the command quietly if nobody reads any more, as in `inferd usage | head`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Else the interpreter complains when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE_STATUS) from None


def say(*lines: str) -> None:
    """Lines for a person; never wrapped, so that they can be copied."""
    write("".join(f"{line}\n" for line in lines))


def say_next(what: str, command: str) -> None:
    """What to do next, and the command that does it."""
    say("", f"{what}:", f"  {command}")


def command_line(data_dir: Path | None, *words: str) -> str:
    """`inferd WORDS`, on the same ledger as the command that prints it; can be pasted into a shell: with the path of
    this program unless the shell finds it by its name."""
    chosen = [] if data_dir is None else ["--data-dir", str(data_dir)]
    return shlex.join([_program(), *words, *chosen])


def _program() -> str:
    program = Path(sys.executable).with_name("inferd")
    found = shutil.which("inferd")
    if not program.exists() or (found is not None and program.samefile(found)):
        return "inferd"
    return str(program)


def print_json(value: object) -> None:
    """One JSON value, in ASCII, so that no terminal or locale can garble it."""
    write(json.dumps(value, indent=2) + "\n")


def print_csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """A line of column names, then a line for each row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(text.getvalue())


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    total: Sequence[object] | None = None,
    title: str | None = None,
) -> None:
    """A table as wide as its contents, on narrow terminals too: an amount is never cut or folded.

    Args:
        right: the columns aligned to the right.
        total: a last row, set off by a line.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    numbers = set(right)
    table = Table(
        box=box.SIMPLE,
        show_footer=total is not None,
        show_edge=False,
        pad_edge=False,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    for index, column in enumerate(columns):
        table.add_column(
            column,
            footer=Text("" if total is None else _cell(total[index])),
            justify="right" if column in numbers else "left",
            no_wrap=True,
        )
    for row in rows:
        # Text: what users wrote (labels, notes) is never read as markup.
        table.add_row(*(Text(_cell(value)) for value in row))
    _print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one pair a line, in two columns."""
    width = max(map(len, fields)) + 2
    say(*(f"{name:<{width}}{_cell(value)}".rstrip() for name, value in fields.items()))


def _cell(value: object) -> str:
    """None as a dash; counts with thousands separators; amounts are text already."""
    if value is None:
        return "-"
    return f"{value:,}" if type(value) is int else str(value)


def _print(renderable: RenderableType) -> None:
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(file=sys.stdout)
    unbounded = console.options.update(width=100_000)
    console.width = Measurement.get(console, unbounded, renderable).maximum
    with console.capture() as capture:
        console.print(renderable)
    write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))
