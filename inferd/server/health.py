"""`GET /health`: for supervisors and load balancers; needs no key."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inferd.server.services import services_of


async def health(request: Request) -> Response:
    """200 `{"status":"ok"}` once every model is warm, 503 before, and after one has failed."""
    if services_of(request).router.is_ready:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "unavailable"}, status_code=503, headers={"retry-after": "1"})
