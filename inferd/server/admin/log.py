"""`GET /admin/log`: the audit log."""

from __future__ import annotations

from starlette.responses import Response

from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.reports import log_record
from inferd.server.admin.call import AdminCall, answer
from inferd.server.query import Query


async def show_log(call: AdminCall) -> Response:
    query = Query(call.request)
    since, until = query.text("since"), query.text("until")
    wanted = operations.LogQuery(
        team=query.text("team"),
        actor=query.text("actor"),
        action=query.text("action"),
        since_ms=None if since is None else parse_instant_ms(since),
        until_ms=None if until is None else parse_instant_ms(until),
        before_seq=query.integer("before"),
        limit=query.integer("limit", 1, operations.MAX_ENTRIES) or 100,
    )
    query.finish()
    entries = await call.read(lambda conn: operations.read_log(conn, wanted))
    return answer({"entries": [log_record(entry) for entry in entries]})
