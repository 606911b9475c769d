"""`GET /health`: for supervisors and load balancers; needs no key."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inferd.server.services import services_of


async def health(request: Request) -> Response:
    """200 `{"status":"ok"}` while requests are taken; 503 before every model is warm, after one has failed, and from
    the signal on that ends the server, so that whoever balances load sends elsewhere."""
    services = services_of(request)
    if services.router.is_ready and not services.completions.is_closed:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "unavailable"}, status_code=503, headers={"retry-after": "1"})
