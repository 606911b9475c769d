"""Output of commands: tables and sentences for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from inferd.money import display_usd, parse_usd
from inferd.units import display_amount

# 128 + SIGPIPE, the status that a shell reports of a program killed by a closed pipe.
BROKEN_PIPE_STATUS = 141
_GAP = "  "
_LEAST_WRAPPED = 12


def write(text: str) -> None:
    """Write text to stdout. End the command quietly if the pipe is closed, as in `inferd usage | head`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the interpreter reports an error when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE_STATUS) from None


def say(*lines: str) -> None:
    """Print lines for a person, never wrapped, so that they can be copied."""
    write("".join(f"{line}\n" for line in lines))


def say_next(what: str, command: str) -> None:
    """Print what to do next, and the command that does it."""
    say("", f"{what}:", f"  {command}")


def command_line(data_dir: Path | None, *words: str) -> str:
    """Return the command `inferd WORDS` for a shell, with the `--data-dir` of the present command.

    The program has its path unless the shell finds it by its name.
    """
    chosen = [] if data_dir is None else ["--data-dir", str(data_dir)]
    return shlex.join([_program(), *words, *chosen])


def _program() -> str:
    program = Path(sys.executable).with_name("inferd")
    found = shutil.which("inferd")
    if not program.exists() or (found is not None and program.samefile(found)):
        return "inferd"
    return str(program)


def print_json(value: object) -> None:
    """Print one JSON value in ASCII, which no terminal or locale can garble."""
    write(json.dumps(value, indent=2) + "\n")


def print_csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Print a line of column names, then a line for each row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(text.getvalue())


@dataclass(slots=True)
class _Column:
    """Column of a table, as text.

    Attributes:
        wrap_width: width to wrap at, in terminal cells; None: each cell is one line.
    """

    name: str
    cells: list[str]
    total: str
    is_right: bool
    wrap_width: int | None = None

    @property
    def width(self) -> int:
        longest = max(map(_length, (*self.cells, self.total)), default=0)
        return max(longest if self.wrap_width is None else min(longest, self.wrap_width), *map(_length, self.heading))

    @property
    def longest_word(self) -> int:
        return max((_length(word) for cell in self.cells if cell.isascii() for word in cell.split()), default=0)

    @property
    def heading(self) -> list[str]:
        return self.name.split("\n")

    def break_heading(self) -> None:
        """Break the heading between words, to the width of the cells."""
        widest = max(map(_length, (*self.cells, self.total, *self.name.split())))
        self.name = "\n".join(_wrapped(self.name, widest))

    @property
    def says_nothing(self) -> bool:
        return all(cell in ("", "-") for cell in (*self.cells, self.total))

    @property
    def is_constant(self) -> bool:
        return len(self.cells) > 1 and len({*self.cells, self.total or self.cells[0]}) == 1

    def text(self, cell: str) -> list[str]:
        return [cell] if self.wrap_width is None else _wrapped(cell, self.width)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    wrap: Iterable[str] = (),
    total: Sequence[object] | None = None,
) -> None:
    """Print a table for a person. No value is ever cut.

    On a terminal, columns without a value are left out. If the table is still too wide, headings are broken, columns
    with one value are named below the table, and columns of `wrap` are wrapped; last, each row becomes a block of
    `name: value` lines. Elsewhere the table is as wide as its contents.

    Args:
        right: columns aligned to the right.
        wrap: columns whose text may be wrapped, the first choice first.
        total: a last row, set off by a line.
    """
    texts = [[_cell(value) for value in row] for row in rows]
    totals = ["" if total is None else _cell(value) for value in (columns if total is None else total)]
    numbers, wrapping = set(right), list(wrap)
    table = [
        _Column(name, [row[index] for row in texts], totals[index], name in numbers)
        for index, name in enumerate(columns)
    ]
    width = _terminal_width()
    if width is None:
        _print_columns(table, total is not None)
        return
    table = [column for column in table if column is table[0] or not column.says_nothing]
    constant = _fit(table, wrapping, width)
    if _width(table) <= width:
        _print_columns(table, total is not None)
        if constant:
            say("", *_wrapped(f"In every row: {', '.join(constant)}.", width))
        return
    blocks = [[*texts[index]] for index in range(len(texts))] + ([totals] if total is not None else [])
    for index, block in enumerate(blocks):
        if index:
            say("")
        _print_pairs(
            {f"{name}:": value for name, value in zip(columns, block, strict=True) if value not in ("", "-")}, width
        )


def _fit(table: list[_Column], wrapping: Sequence[str], width: int) -> list[str]:
    """Make the columns of `table` narrower until they fit, if possible.

    Returns:
        Names and values of the columns that were taken out because all rows have the same value.
    """
    if _width(table) > width:
        for column in table:
            column.break_heading()
    constant: list[str] = []
    for column in reversed(table[1:]):
        if _width(table) > width and column.is_constant:
            table.remove(column)
            constant.insert(0, f"{column.name.replace(chr(10), ' ')} {column.cells[0]}")
    for name in wrapping:
        for column in table:
            excess = _width(table) - width
            if excess > 0 and column.name.replace("\n", " ") == name:
                column.wrap_width = max(column.longest_word, column.width - excess, _LEAST_WRAPPED)
    return constant


def _width(table: Sequence[_Column]) -> int:
    return sum(column.width for column in table) + len(_GAP) * (len(table) - 1)


def _print_columns(table: Sequence[_Column], has_total: bool) -> None:
    rule = _GAP.join("─" * column.width for column in table)
    height = max(len(column.heading) for column in table)
    # Headings are aligned at the bottom.
    lines = _row_lines(table, [[*[""] * (height - len(column.heading)), *column.heading] for column in table])
    lines.append(rule)
    for index in range(len(table[0].cells)):
        lines += _row_lines(table, [column.text(column.cells[index]) for column in table])
    if has_total:
        lines += [rule, *_row_lines(table, [column.text(column.total) for column in table])]
    say(*lines)


def _row_lines(table: Sequence[_Column], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a row; its tallest cell says how many."""
    lines = []
    for line in range(max(map(len, cells))):
        parts = []
        for column, cell in zip(table, cells, strict=True):
            text = cell[line] if line < len(cell) else ""
            blanks = " " * (column.width - _length(text))
            parts.append(blanks + text if column.is_right else text + blanks)
        lines.append(_GAP.join(parts).rstrip())
    return lines


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values in two columns, one pair a line."""
    _print_pairs({name: _cell(value) for name, value in fields.items()}, _terminal_width())


def _print_pairs(pairs: Mapping[str, str], width: int | None) -> None:
    """Print names and values in two columns; a value that is too wide continues below itself."""
    indent = max(map(len, pairs)) + len(_GAP)
    for name, value in pairs.items():
        lines = [value] if width is None else _wrapped(value, max(_LEAST_WRAPPED, width - indent))
        for index, line in enumerate(lines):
            say(f"{name if index == 0 else '':<{indent}}{line}".rstrip())


def moment_text(at: str | int | None) -> str | None:
    """Return `2026-11-30 12:22` (UTC) of milliseconds since 1970 or of an ISO 8601 text."""
    from inferd.instants import display_instant, parse_instant_ms

    if at is None:
        return None
    return display_instant(parse_instant_ms(at) if isinstance(at, str) else at)


def budgets_text(record: Mapping[str, Any]) -> str:
    """Return `$50.00 a month, 2,000 tokens in all` of the budgets in the record of a project, user or key."""
    amounts = [
        *((usd_text(usd), by) for by, usd in record["budgets"].items()),
        *((display_amount("tokens", amount), by) for by, amount in record["token_budgets"].items()),
        *((display_amount("compute_ms", amount), by) for by, amount in record["compute_ms_budgets"].items()),
    ]
    return ", ".join(f"{text} {'in all' if by == 'lifetime' else f'a {by}'}" for text, by in amounts)


def usd_text(usd: str) -> str:
    """Return `$0.10` of `0.100000000`, the form of amounts in records."""
    return display_usd(parse_usd(usd))


def _cell(value: object) -> str:
    """Return the text of a value: a dash for None, thousands separators for integers, no control characters."""
    if value is None:
        return "-"
    text = f"{value:,}" if type(value) is int else str(value)
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    )


def _length(text: str) -> int:
    """Return the width of the text in terminal cells."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _wrapped(text: str, width: int) -> list[str]:
    """Return lines of at most `width` cells, at least one.

    Words stay whole, so that they can be copied; texts in wide characters are broken anywhere.
    """
    if _length(text) <= width:
        return [text]
    is_wide = _length(text) > len(text)
    most = max(1, width // 2) if is_wide else width
    return textwrap.wrap(text, most, break_on_hyphens=False, break_long_words=is_wide) or [""]


def _terminal_width() -> int | None:
    """Return the width of the terminal, or None if stdout is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
