"""Commands that read or replace the whole ledger: `inferd ledger export`, `audit`, `backup` and `restore`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, print_json, print_table, say, say_next, write
from inferd.config import data_dir as folder_of
from inferd.errors import OperationError
from inferd.instants import wall_clock_ms
from inferd.money import display_usd, format_usd

if TYPE_CHECKING:
    from inferd.ledger.maintenance.restore import Loss, Restore

app = typer.Typer(no_args_is_help=True, help="Export the ledger.")

_BLOCK_CHARACTERS = 2**18


@app.command()
def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File to write, readable by you alone; - is stdout.")
    ] = "-",
    data_dir: DataDir = None,
) -> None:
    """Export the ledger as JSON Lines.

    The export is one snapshot, complete enough to compute every balance again without inferd. Field `record` of each
    line names its kind; docs/billing.md describes the kinds. The export has names and amounts, and no secret keys.

    ```console
    $ inferd ledger export ledger.jsonl
    $ inferd ledger export | jq -c 'select(.record == "usage")'
    ```
    """
    from inferd.ledger.reports import export_lines

    path = None if file == "-" else Path(file)
    store = open_store(data_dir)
    try:
        if path is not None and (path.is_file() or not path.exists()):
            with store.reading() as conn:
                count = _replace_file(path.resolve(), export_lines(conn, now_ms=wall_clock_ms()))
        else:
            # The write-ahead log cannot shrink during a snapshot, and the reader of a pipe may be slow. So the snapshot
            # ends before the first line is written to the pipe.
            with tempfile.TemporaryFile("w+", encoding="utf-8", dir=store.data_dir) as whole:
                with store.reading() as conn:
                    count = _write_lines(whole, export_lines(conn, now_ms=wall_clock_ms()))
                whole.seek(0)
                _copy_out(whole, path)
    except OSError as error:
        raise OperationError(f"{file}: cannot be written: {error.strerror}") from error
    if path is not None:
        say(f"Wrote {count:,} records to {file}.")


def _copy_out(whole: IO[str], path: Path | None) -> None:
    """Copy to stdout if `path` is None, else into a pipe or device."""
    if path is not None:
        with path.open("w", encoding="utf-8") as file:
            shutil.copyfileobj(whole, file, _BLOCK_CHARACTERS)
        return
    while block := whole.read(_BLOCK_CHARACTERS):
        write(block)


def _replace_file(path: Path, lines: Iterator[str]) -> int:
    """Write the lines to a file of mode 600 in place of `path`, and return their number."""
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


def audit(json: Json = False, data_dir: DataDir = None) -> None:
    """Check that the ledger balances.

    The audit computes all balances again from the entries and compares them with every stored sum and rule. It reads
    one snapshot, also while a server runs; a large ledger is copied first, if the disk has room. Exit status 0: the
    ledger balances. Exit status 1: it does not; each difference is printed with its table and row.

    ```console
    $ inferd audit
    ```
    """
    from inferd.ledger.audit.run import audit as audit_ledger

    store = open_store(data_dir)
    with store.reading_long() as conn:
        report = audit_ledger(conn)
    if json:
        print_json(
            {"clean": report.clean, "rows": report.rows, "findings": [asdict(finding) for finding in report.findings]}
        )
    elif report.clean:
        say(f"The ledger balances: {store.path}", "")
        print_table(("Table", "Rows checked"), report.rows.items(), right=("Rows checked",))
    else:
        say(*map(str, report.findings))
    if not report.clean:
        count = len(report.findings)
        raise OperationError(
            f"{store.path}: the ledger does not balance, {count} difference{'s' if count > 1 else ''} found"
        )


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file, readable by you alone.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Copy the ledger into one file.

    This works while a server runs. The copy is one snapshot; it gets its name once it is on disk and balances.

    ```console
    $ inferd backup ledger-2026-11-21.db
    ```
    """
    from inferd.ledger.maintenance.backup import back_up

    made = back_up(open_store(data_dir).path, file)
    if json:
        print_json({"file": str(made.path), "bytes": made.size_bytes, "rows": made.report.rows})
        return
    requests, movements = made.report.rows["usage"], made.report.rows["transactions"]
    say(
        f"Backed up to {file} ({made.size_bytes:,} bytes; {requests:,} requests, {movements:,} transactions). "
        "The copy balances."
    )
    say_next("To restore it, stop the server, then run", command_line(data_dir, "restore", str(file)))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `inferd backup` made.")],
    yes: Annotated[bool, typer.Option("--yes", help="Restore; without this, only list what would be lost.")] = False,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Replace the ledger with a backup.

    Changes made after the backup are lost: the command lists them, and restores only with --yes. Stop the server first.
    The backup is audited, and migrated if an older inferd made it. The replaced ledger is kept beside the restored one.

    ```console
    $ inferd restore ledger-2026-11-21.db
    $ inferd restore ledger-2026-11-21.db --yes
    ```
    """
    from inferd.ledger import DataLock
    from inferd.ledger.maintenance.restore import prepared_restore

    folder = folder_of(data_dir)
    with DataLock(folder) as lock, prepared_restore(folder, file, lock) as prepared:
        losses = _losses(prepared)
        if not json:
            _say_losses(losses)
        kept = prepared.perform(wall_clock_ms()) if yes else None
    if json:
        lost = None if isinstance(losses, str) else [_loss_record(loss) for loss in losses]
        print_json({"restored": yes, "lost": lost, "kept": None if kept is None else str(kept)})
    elif yes:
        say(f"Restored {file}.", *([] if kept is None else [f"The replaced ledger is kept in {kept}."]))
    else:
        say_next("Nothing was changed. To restore, run", command_line(data_dir, "restore", str(file), "--yes"))


def _losses(prepared: Restore) -> list[Loss] | str:
    """Return what would be lost, or why that cannot be determined."""
    try:
        return prepared.losses()
    except OperationError as error:
        return error.message


def _loss_record(loss: Loss) -> dict[str, object]:
    return {
        "what": loss.what,
        "count": loss.count,
        "usd": None if loss.nanousd is None else format_usd(loss.nanousd),
    }


def _say_losses(losses: list[Loss] | str) -> None:
    if isinstance(losses, str):
        say(f"It is unknown what would be lost: {losses}.")
        return
    if not losses:
        say("Nothing would be lost: the ledger has not changed since the backup.")
        return
    say("A restore loses what was added to the ledger after the backup:")
    for loss in losses:
        amount = "" if loss.nanousd is None else f" ({display_usd(loss.nanousd)})"
        say(f"  {loss.count:,} {loss.what}{amount}")
