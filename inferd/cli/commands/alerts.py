"""`inferd alerts`: the alerts about limits and credit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.cli.access import open_store
from inferd.cli.options import DataDir, Json, OneTeam
from inferd.cli.output import moment_text, print_json, print_table, say

if TYPE_CHECKING:
    from inferd.ledger.alerts import Delivery


def alerts(
    team: OneTeam = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List alerts about limits and credit, oldest first.

    There is one alert for each limit, period and percentage of `[alerts]` in models.toml, and one when credit runs low.
    Column Delivered has the state of the alert at each webhook: delivered, waiting or dead (given up after a day).

    ```console
    $ inferd alerts --team acme
    ```
    """
    from inferd.ledger.alerts import alert_states, alert_text
    from inferd.ledger.identity import find_team
    from inferd.ledger.reports import alert_state_record

    with open_store(data_dir).reading() as conn:
        if team is not None:
            find_team(conn, team)
        states = alert_states(conn, team)
    if json:
        print_json([alert_state_record(state) for state in states])
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
    """Return `delivered`, or `waiting after 2 attempts`."""
    if delivery.state == "delivered" and delivery.attempts == 1:
        return delivery.state
    return f"{delivery.state} after {delivery.attempts} attempt{'' if delivery.attempts == 1 else 's'}"
