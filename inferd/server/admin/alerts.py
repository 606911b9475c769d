"""Alerts of a team: caps that were nearly or wholly spent, credit that ran low."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from inferd.ledger.alerts.deliveries import AlertState, alert_json, alert_states
from inferd.ledger.identity.teams import find_team
from inferd.ledger.storage.client import Connection
from inferd.server.admin.call import team_call
from inferd.server.admin.paging import Paging


async def list_alerts(request: Request) -> Response:
    call, paging = team_call(request), Paging.of(request, numbered=True)

    def read(conn: Connection) -> list[AlertState]:
        find_team(conn, call.team)
        return alert_states(conn, call.team, paging.page)

    def record(state: AlertState) -> dict[str, Any]:
        # Where alerts are sent is the operator's secret.
        return state.to_json() if call.is_operator else alert_json(state.alert)

    return paging.answer("alerts", await call.read(read), lambda state: state.alert.alert_id, record)
