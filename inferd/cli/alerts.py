"""`inferd alerts`: what teams' money has come to."""

from __future__ import annotations

from typing import Annotated

import typer

from inferd.cli.access import open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import print_json, print_table, say
from inferd.ledger.periods import format_instant


def alerts(
    team: Annotated[
        str | None, typer.Option(metavar="TEAM", show_default=False, help="Only of this team. Default: of all.")
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the alerts, oldest first: caps that were nearly or wholly spent, credit that ran low.

    Each is made once for a cap, period and threshold. Delivered: to how many of the webhooks of models.toml; a dead one
    was given up after a day.

    ```console
    $ inferd alerts --team acme
    ```
    """
    from inferd.ledger.deliveries import alert_states, alert_text
    from inferd.ledger.teams import find_team

    with open_store(data_dir).reading() as conn:
        if team is not None:
            find_team(conn, team)
        states = alert_states(conn, team)
    if json:
        print_json([state.to_json() for state in states])
    elif not states:
        say("There are no alerts.")
    else:
        print_table(
            ("At", "Team", "Alert", "Delivered"),
            [
                (
                    format_instant(state.alert.at_ms),
                    state.alert.team,
                    alert_text(state.alert),
                    ", ".join(f"{delivery.state} ({delivery.attempts})" for delivery in state.deliveries) or "-",
                )
                for state in states
            ],
        )
