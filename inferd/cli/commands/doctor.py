"""`inferd doctor`: is anything wrong with the place where the ledger lives?"""

from __future__ import annotations

from typing import Annotated

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, print_json, print_table, say_next
from inferd.errors import OperationError
from inferd.instants import wall_clock_ms


def doctor(
    server: Annotated[
        bool, typer.Option("--server/--no-server", help="Whether a server has to run for all to be well.")
    ] = True,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="The clock is right now: credit expires by it again.")
    ] = False,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Check whether a server runs, the data folder, its disk and the clock.

    Exit status 0: all is well. Exit status 1: something needs you, and it says what. With --no-server a server that
    does not run is well.

    Credit does not expire while the clock is doubted: it went back since a server last saw it, or ran more than 24
    hours ahead within one run. Set the clock right, then accept it.

    ```console
    $ inferd doctor
    $ inferd doctor --no-server --accept-clock
    ```
    """
    from inferd.ledger.maintenance import doctor as health

    store = open_store(data_dir)
    if accept_clock:
        with store.immediate() as conn:
            health.accept_clock(conn, actor=actor(), now_ms=wall_clock_ms())
    with store.reading() as conn:
        checks = health.checks(conn, store, wall_clock_ms(), needs_server=server)
    well = all(check.well for check in checks)
    if json:
        print_json({"well": well, "checks": [check.to_json() for check in checks]})
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
