"""Alerts of a team: caps that are nearly or wholly spent, and low credit."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from inferd.ledger import Connection
from inferd.ledger.alerts import AlertState, alert_states
from inferd.ledger.identity import find_team
from inferd.ledger.reports import alert_record, alert_state_record
from inferd.server.admin.call import AdminCall
from inferd.server.admin.paging import Paging


async def list_alerts(call: AdminCall) -> Response:
    paging = Paging.of(call.request, numbered=True)

    def read(conn: Connection) -> list[AlertState]:
        find_team(conn, call.team)
        return alert_states(conn, call.team, paging.page)

    def record(state: AlertState) -> dict[str, Any]:
        # The webhooks are the operator's secret.
        return alert_state_record(state) if call.is_operator else alert_record(state.alert)

    return paging.answer("alerts", await call.read(read), lambda state: state.alert.alert_id, record)
