"""`GET /admin/log`: who changed what."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.operations import MAX_ENTRIES
from inferd.server.admin.call import answer, operator_call
from inferd.server.query import Query


async def show_log(request: Request) -> Response:
    call = operator_call(request)
    query = Query(request)
    team, actor, action = query.text("team"), query.text("actor"), query.text("action")
    since, until = query.text("since"), query.text("until")
    before, limit = query.integer("before"), query.integer("limit", 1, MAX_ENTRIES) or 100
    query.finish()
    entries = await call.read(
        lambda conn: operations.read_log(
            conn,
            team=team,
            actor=actor,
            action=action,
            since_ms=None if since is None else parse_instant_ms(since),
            until_ms=None if until is None else parse_instant_ms(until),
            before_seq=before,
            limit=limit,
        )
    )
    return answer({"entries": [entry.to_json() for entry in entries]})
