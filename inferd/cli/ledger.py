"""`inferd ledger`: the books as a whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Annotated

import typer

from inferd.cli.access import open_store
from inferd.cli.options import DataDir
from inferd.cli.output import say, write
from inferd.errors import OperationError
from inferd.serving.clock import wall_clock_ms

app = typer.Typer(no_args_is_help=True, help="The books as a whole.")

_LINES_A_WRITE = 1000


@app.command()
def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Where to; - is standard output. A file is readable by you alone.")
    ] = "-",
    data_dir: DataDir = None,
) -> None:
    """Write the whole ledger as JSON Lines: one moment's truth, enough to add everything up without inferd.

    Each line is an object whose `record` says what it is: ledger, team, project, user, key, epoch, transaction, entry,
    account, grant, hold, usage, counter. Fields: docs/billing.md. It holds no keys, but names and amounts.

    ```console
    $ inferd ledger export books.jsonl
    $ inferd ledger export | jq -c 'select(.record == "usage")'
    ```
    """
    from inferd.ledger.export import export_lines

    with open_store(data_dir, must_exist=True).reading() as conn:
        lines = export_lines(conn, now_ms=wall_clock_ms())
        if file == "-":
            for text in _in_blocks(lines):
                write(text)
            return
        count = _write_file(Path(file), lines)
    say(f"Wrote {count:,} records to {file}.")


def _in_blocks(lines: Iterator[str]) -> Iterator[str]:
    """The lines with their ends, many at a time."""
    while block := list(islice(lines, _LINES_A_WRITE)):
        yield "".join(f"{line}\n" for line in block)


def _write_file(path: Path, lines: Iterator[str]) -> int:
    """Write a private file that is there as a whole or not at all; returns the number of lines."""
    count = 0
    try:
        if path.exists() and not path.is_file():
            # A pipe or a device is written to, not replaced.
            with path.open("w", encoding="utf-8") as file:
                count = _write_lines(file, lines)
        else:
            count = _replace_file(path.resolve(), lines)
    except OSError as exc:
        raise OperationError(f"{path}: cannot be written: {exc.strerror}") from exc
    return count


def _replace_file(path: Path, lines: Iterator[str]) -> int:
    # A temporary file is made with mode 600.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        partial = Path(file.name)
        try:
            count = _write_lines(file, lines)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink()
            raise
    return count


def _write_lines(file: IO[str], lines: Iterator[str]) -> int:
    return sum(1 for line in lines if file.write(f"{line}\n"))
