"""`inferd ledger`: the books as a whole."""

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
from inferd.config.models_file import data_dir as folder_of
from inferd.errors import OperationError
from inferd.instants import wall_clock_ms
from inferd.money import display_usd, format_usd

if TYPE_CHECKING:
    from inferd.ledger.maintenance.restore import Loss, Restore

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


def audit(json: Json = False, data_dir: DataDir = None) -> None:
    """Check that the books balance.

    Adds up the whole ledger again and compares it with every stored sum, row and rule. Reads one moment's truth, beside
    a running server too: a large ledger from a copy of it, if the disk has room. Exit status 0: the books balance.
    Exit status 1: they do not, and each difference is printed as table, row and what is wrong with it.

    ```console
    $ inferd audit
    ```
    """
    from inferd.ledger.audit.audit import audit as audit_ledger

    store = open_store(data_dir)
    with store.reading_long() as conn:
        report = audit_ledger(conn)
    if json:
        print_json(
            {"clean": report.clean, "rows": report.rows, "findings": [asdict(finding) for finding in report.findings]}
        )
    elif report.clean:
        say(f"The books balance: {store.path}", "")
        print_table(("Table", "Rows checked"), report.rows.items(), right=("Rows checked",))
    else:
        say(*map(str, report.findings))
    if not report.clean:
        count = len(report.findings)
        raise OperationError(
            f"{store.path}: the books do not balance, {count} difference{'s' if count > 1 else ''} found"
        )


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it must not exist. Readable by you alone.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Copy the ledger into one file, beside a running server too.

    The copy is one moment's truth. It gets its name only once it is complete, on disk, and its books balance.

    ```console
    $ inferd backup books-2026-11-21.db
    ```
    """
    from inferd.ledger.maintenance.backup import back_up

    made = back_up(open_store(data_dir).path, file)
    if json:
        print_json({"file": str(made.path), "bytes": made.size_bytes, "rows": made.report.rows})
        return
    requests, movements = made.report.rows["usage"], made.report.rows["transactions"]
    say(
        f"Backed up to {file} ({made.size_bytes:,} bytes; {requests:,} requests, {movements:,} movements of money). "
        "The copy's books balance."
    )
    say_next("Go back to it, with the server stopped", command_line(data_dir, "restore", str(file)))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `inferd backup` made.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it only says what would be lost.")] = False,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Go back to a backup: whatever the ledger has and the backup has not is lost.

    Says first what that is, and does nothing more without --yes. Needs the server stopped. The backup is audited and,
    if an older inferd made it, brought to this one's schema. The ledger as it was is kept beside it.

    ```console
    $ inferd restore books-2026-11-21.db
    $ inferd restore books-2026-11-21.db --yes
    ```
    """
    from inferd.ledger.maintenance.restore import prepared_restore
    from inferd.ledger.storage.data_dir import DataLock

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
        say(f"Restored {file}.", *([] if kept is None else [f"The ledger as it was is kept in {kept}."]))
    else:
        say_next("Nothing was changed. Do it", command_line(data_dir, "restore", str(file), "--yes"))


def _losses(prepared: Restore) -> list[Loss] | str:
    """What would be lost, or why nobody can say."""
    try:
        return prepared.losses()
    except OperationError as exc:
        return exc.message


def _loss_record(loss: Loss) -> dict[str, object]:
    return {
        "what": loss.what,
        "count": loss.count,
        "usd": None if loss.nanousd is None else format_usd(loss.nanousd),
    }


def _say_losses(losses: list[Loss] | str) -> None:
    if isinstance(losses, str):
        say(f"What would be lost is unknown: {losses}.")
        return
    if not losses:
        say("Nothing would be lost: the backup has all that the ledger has.")
        return
    say("The ledger has what the backup has not, and what will be lost:")
    for loss in losses:
        amount = "" if loss.nanousd is None else f" ({display_usd(loss.nanousd)})"
        say(f"  {loss.count:,} {loss.what}{amount}")
