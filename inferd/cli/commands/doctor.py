"""`inferd doctor`: checks of the server, the data folder, its disk and the clock."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import ask_running_server, author, open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, print_json, print_table, say_next
from inferd.errors import OperationError
from inferd.instants import wall_clock_ms

if TYPE_CHECKING:
    from inferd.ledger.maintenance.doctor import Check


def doctor(
    server: Annotated[
        bool, typer.Option("--server/--no-server", help="Whether it is a fault that no server runs.")
    ] = True,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="Confirm that the clock is right: credit expires again.")
    ] = False,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Check the server, the data folder, its disk and the clock.

    Exit status 0: all checks passed. Exit status 1: a check failed; stderr says what to do.

    If the clock jumps back, or more than 24 hours ahead while a server runs, inferd stops expiring credit. Correct the
    clock, then run `inferd doctor --accept-clock`.

    ```console
    $ inferd doctor
    $ inferd doctor --no-server --accept-clock
    ```
    """
    from inferd.ledger.maintenance import doctor as health

    store = open_store(data_dir)
    if accept_clock:
        with store.immediate() as conn:
            health.accept_clock(conn, by=author(wall_clock_ms()))
    with store.reading() as conn:
        checks = health.checks(conn, store, wall_clock_ms(), needs_server=server)
    checks = [_with_answer(check, data_dir) if check.name == "server" else check for check in checks]
    well = all(check.well for check in checks)
    if json:
        print_json({"well": well, "checks": [asdict(check) for check in checks]})
    else:
        print_table(
            ("Check", "State", "Finding"),
            [(check.name, "well" if check.well else "WRONG", check.said) for check in checks],
            wrap=("Finding",),
        )
    if well:
        return
    if not json and any(check.name == "clock" and not check.well for check in checks):
        say_next("Once the clock is right", command_line(data_dir, "doctor", "--accept-clock"))
    raise OperationError("; ".join(check.said for check in checks if not check.well))


def _with_answer(check: Check, data_dir: Path | None) -> Check:
    """Return the check of the server, completed by whether a server that runs answers."""
    try:
        answer = ask_running_server(data_dir, "GET", "/health")
    except OperationError as error:
        return replace(check, well=False, said=error.message)
    if answer is None:
        return check
    is_ready = answer[0] == 200
    return replace(check, said=f"{check.said}, and {'is ready' if is_ready else 'is loading models or stopping'}")
