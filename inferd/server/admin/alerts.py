"""Alerts of a team: caps that were nearly or wholly spent, credit that ran low."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inferd.ledger.client import Connection
from inferd.ledger.deliveries import AlertState, alert_json, alert_states
from inferd.ledger.teams import find_team
from inferd.server.admin.call import answer, team_call


async def list_alerts(request: Request) -> Response:
    call = team_call(request)

    def read(conn: Connection) -> list[AlertState]:
        find_team(conn, call.team)
        return alert_states(conn, call.team)

    states = await call.read(read)
    # Where alerts are sent is the operator's secret.
    if call.is_operator:
        return answer({"alerts": [state.to_json() for state in states]})
    return answer({"alerts": [alert_json(state.alert) for state in states]})
