"""`inferd backup` and `inferd restore`: a copy of the books, and the way back to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, print_json, say, say_next
from inferd.config.models_file import data_dir as folder_of
from inferd.errors import OperationError
from inferd.instants import wall_clock_ms
from inferd.money import display_usd, format_usd

if TYPE_CHECKING:
    from inferd.ledger.maintenance.restore import Loss, Restore


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
    from inferd.ledger.storage.lock import DataLock

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
