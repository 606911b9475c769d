"""Headers of every response: the request id, which the server makes and never takes from the client (BILLING R22); the
time until the headers; the retirement of the deployment; the fields of the request that were ignored."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferd.deployments.deployment import Deployment
from inferd.server.middleware.gate import HEALTH_PATH
from inferd.server.refusal_log import RefusalLog
from inferd.serving.request_id import new_request_id
from inferd.wire.anthropic.errors import speaks_messages
from inferd.wire.ignored_fields import IgnoredFields

logger = logging.getLogger(__name__)

IGNORED_HEADER = "inferd-ignored"
_IGNORED_KEY = "ignored"
_RETIREMENT_KEY = "retirement"
_ANTHROPIC_HEADER = "request-id"
_PROCESSING_HEADER = "openai-processing-ms"


def remember_ignored(request: Request) -> IgnoredFields:
    """Return the record of the request's ignored fields. Its response, an error too, names them in a header."""
    ignored = IgnoredFields(strict=request.app.state.strict)
    request.scope.setdefault("state", {})[_IGNORED_KEY] = ignored
    return ignored


def _ignored_headers(scope: Scope) -> dict[str, str]:
    """Return the header that names the ignored fields, {} without any."""
    ignored: IgnoredFields | None = scope["state"].get(_IGNORED_KEY)
    names = "" if ignored is None else ignored.header_value()
    if not names:
        return {}
    logger.debug("%s: ignored %s", scope["state"]["request_id"], names)
    return {IGNORED_HEADER: names}


def remember_retirement(request: Request, deployment: Deployment) -> None:
    """Add to the response of this request, an error too, the headers that say when `deployment` is retired."""
    request.scope.setdefault("state", {})[_RETIREMENT_KEY] = deployment.retirement


def _retirement_headers(scope: Scope) -> dict[str, str]:
    """Return `Deprecation` (RFC 9745) and `Sunset` (RFC 8594) of a deployment that is being retired, {} without one."""
    retirement = scope["state"].get(_RETIREMENT_KEY)
    if retirement is None:
        return {}
    return {
        "deprecation": f"@{retirement.announced_at_ms // 1000}",
        "sunset": formatdate(retirement.gone_at_ms // 1000, usegmt=True),
    }


class ResponseHeaders:
    """ASGI middleware that sets `scope["state"]["request_id"]` and the headers of the response, and logs errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refusals = RefusalLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received_ns = time.monotonic_ns()
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers.update(_retirement_headers(scope))
                headers.update(_ignored_headers(scope))
                took_ms = (time.monotonic_ns() - received_ns) // 1_000_000
                if speaks_messages(scope["path"]):
                    headers[_ANTHROPIC_HEADER] = request_id
                else:
                    headers[_PROCESSING_HEADER] = str(took_ms)
                if message["status"] >= 400 and scope["path"] != HEALTH_PATH:
                    self._refusals.write(scope, message["status"], took_ms)
            await send(message)

        await self._app(scope, receive, send_with_headers)
