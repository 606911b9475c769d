"""`GET /v1/key`: the caller's key and the amounts that it can still spend."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inferd.instants import wall_clock_ms
from inferd.ledger.reports import key_status
from inferd.server.auth import authenticate_request
from inferd.server.services import services_of


async def get_key(request: Request) -> Response:
    """Answer with the state of the caller's own key, whatever its scopes."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    return JSONResponse(await services.ledger.read(lambda conn: key_status(conn, caller, now_ms=wall_clock_ms())))
