"""`inferd ledger`: the books as a whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from inferd.cli.access import open_store
from inferd.cli.options import DataDir
from inferd.cli.output import say, write
from inferd.errors import OperationError
from inferd.instants import wall_clock_ms

app = typer.Typer(no_args_is_help=True, help="Export the whole ledger.")

_BLOCK_CHARACTERS = 2**18


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
    from inferd.ledger.reports.export import export_lines

    path = None if file == "-" else Path(file)
    store = open_store(data_dir)
    try:
        if path is not None and (path.is_file() or not path.exists()):
            with store.reading() as conn:
                count = _replace_file(path.resolve(), export_lines(conn, now_ms=wall_clock_ms()))
        else:
            # A reader of a pipe may take its time; as long as a snapshot lasts, the write-ahead log only grows. So the
            # snapshot ends before the first line goes out.
            with tempfile.TemporaryFile("w+", encoding="utf-8", dir=store.data_dir) as whole:
                with store.reading() as conn:
                    count = _write_lines(whole, export_lines(conn, now_ms=wall_clock_ms()))
                whole.seek(0)
                _copy_out(whole, path)
    except OSError as exc:
        raise OperationError(f"{file}: cannot be written: {exc.strerror}") from exc
    if path is not None:
        say(f"Wrote {count:,} records to {file}.")


def _copy_out(whole: IO[str], path: Path | None) -> None:
    """To standard output if `path` is None, else to a pipe or a device, which is written to and not replaced."""
    if path is not None:
        with path.open("w", encoding="utf-8") as file:
            shutil.copyfileobj(whole, file, _BLOCK_CHARACTERS)
        return
    while block := whole.read(_BLOCK_CHARACTERS):
        write(block)


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
