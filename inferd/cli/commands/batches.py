"""`inferd batches`: batches of requests."""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from inferd.cli.access import ask_running_server, author, open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, moment_text, print_fields, print_json, print_table, say, say_next
from inferd.instants import wall_clock_ms
from inferd.money import display_usd

if TYPE_CHECKING:
    from inferd.ledger.batches import BatchRecord

WATCH_S = 1.0

app = typer.Typer(
    no_args_is_help=True,
    help="Show and cancel batches.\n\nA batch is a file of requests, answered within 24 hours at a lower price.",
)

BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Id of the batch, such as batch_1f0c.")]


@app.command(name="list")
def list_(
    team: Annotated[str | None, typer.Argument(metavar="TEAM", help="Only this team. Default: all teams.")] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", min=1, max=1000, help="Most batches to list.")] = 20,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List batches, newest first.

    ```console
    $ inferd batches list acme
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import batch_record

    with open_store(data_dir).reading() as conn:
        batches = operations.list_batches(conn, team, limit=limit)
    if json:
        print_json([batch_record(batch) for batch in batches])
        return
    if not batches:
        say("There are no batches yet. API clients create them with POST /v1/batches.")
        return
    rows = [
        (batch.batch_id, batch.team, batch.project, batch.status, moment_text(batch.created_at_ms), *_counts(batch))
        for batch in batches
    ]
    names = ("Batch", "Team", "Project", "Status", "Created", "Lines", "Answered", "Failed")
    print_table(names, rows, right=names[5:])


@app.command()
def show(
    batch: BatchId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the progress until the batch has ended.")] = False,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show a batch, with its progress and its files.

    ```console
    $ inferd batches show batch_1f0c --watch
    ```
    """
    from inferd.ledger.batches import MOMENTS
    from inferd.ledger.reports import batch_record

    found = _find(data_dir, batch)
    if watch and found.is_active:
        found = _follow(data_dir, found, quiet=json)
    if json:
        print_json(batch_record(found))
        return
    total, completed, failed = _counts(found)
    fields: dict[str, object] = {
        "Batch": found.batch_id,
        "Team": found.team,
        "Project": found.project,
        "Status": found.status,
        "Endpoint": found.endpoint,
        "Lines": f"{total:,}: {completed:,} answered, {failed:,} failed",
        "Input file": found.input_file_id,
        "Output file": found.output_file_id,
        "Error file": found.error_file_id,
        "Created": moment_text(found.created_at_ms),
        "Expires": moment_text(found.expires_at_ms),
    }
    if found.totals is not None:
        tokens = found.totals
        fields["Tokens"] = (
            f"{tokens.prompt_tokens:,} in ({tokens.cached_tokens:,} cached), {tokens.completion_tokens:,} out"
        )
        fields["Cost"] = display_usd(tokens.cost_nanousd)
    for name in MOMENTS:
        at_ms = getattr(found, f"{name}_at_ms")
        if at_ms is not None:
            fields[name.replace("_", " ").capitalize()] = moment_text(at_ms)
    print_fields(fields)


@app.command()
def cancel(batch: BatchId, json: Json = False, data_dir: DataDir = None) -> None:
    """Cancel a batch.

    Lines that were answered are delivered and billed; the other lines are dropped. A running server stops the batch at
    once; otherwise the next start does.

    ```console
    $ inferd batches cancel batch_1f0c
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import batch_record

    store = open_store(data_dir)
    answer = ask_running_server(data_dir, "POST", f"/admin/batches/{quote(batch, safe='')}/cancel")
    if answer is None:
        with store.immediate() as conn:
            cancelled = batch_record(operations.cancel_batch(conn, batch, by=author(wall_clock_ms())))
    else:
        _, cancelled = answer
    if json:
        print_json(cancelled)
        return
    say(f"Cancelling batch {batch} of team {cancelled['team']}.")
    say_next("Follow its progress", command_line(data_dir, "batches", "show", batch, "--watch"))


def _find(data_dir: Path | None, batch_id: str) -> BatchRecord:
    from inferd.ledger.batches import find_batch

    with open_store(data_dir).reading() as conn:
        return find_batch(conn, batch_id)


def _follow(data_dir: Path | None, batch: BatchRecord, *, quiet: bool) -> BatchRecord:
    """Show a progress bar on stderr until the batch has ended, and return the batch as it is then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(batch.status, total=batch.num_total or None)
        while True:
            done = batch.num_completed + batch.num_failed
            progress.update(task, description=batch.status, total=batch.num_total or None, completed=done)
            if not batch.is_active:
                return batch
            sleep(WATCH_S)
            batch = _find(data_dir, batch.batch_id)


def _counts(batch: BatchRecord) -> tuple[int, int, int]:
    return batch.num_total, batch.num_completed, batch.num_failed
