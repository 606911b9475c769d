"""`inferd alerts`: limits that are nearly spent, and credit that runs low."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import moment_text, print_json, print_table, say

if TYPE_CHECKING:
    from inferd.ledger.alerts.deliveries import Delivery


def alerts(
    team: Annotated[
        str | None, typer.Option(metavar="TEAM", show_default=False, help="Only of this team. Default: of all.")
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the alerts, oldest first: caps that were nearly or wholly spent, credit that ran low.

    You get one alert for each limit, period and percentage. Delivered: whether each webhook of models.toml got it, and
    after how many attempts; `dead` means that inferd gave up after a day.

    ```console
    $ inferd alerts --team acme
    ```
    """
    from inferd.ledger.alerts.deliveries import alert_states, alert_text
    from inferd.ledger.identity.teams import find_team

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
            ("At", "Team", "Delivered", "Alert"),
            [
                (
                    moment_text(state.alert.at_ms),
                    state.alert.team,
                    ", ".join(map(_delivery, state.deliveries)) or None,
                    alert_text(state.alert),
                )
                for state in states
            ],
            wrap=("Alert", "Delivered"),
        )


def _delivery(delivery: Delivery) -> str:
    """`delivered`, or `waiting after 2 attempts`: the first attempt is the rule."""
    if delivery.state == "delivered" and delivery.attempts == 1:
        return delivery.state
    return f"{delivery.state} after {delivery.attempts} attempt{'' if delivery.attempts == 1 else 's'}"
