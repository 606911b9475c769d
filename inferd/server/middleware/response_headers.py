"""Headers of every response: its id, the server's own and never the client's (BILLING R22); how long it took until its
headers; when the deployment is retired; which fields of the request were ignored."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferd.server.middleware.gate import HEALTH_PATH
from inferd.server.middleware.retirement_notice import retirement_headers
from inferd.server.refusal_log import RefusalLog
from inferd.serving.request_id import new_request_id
from inferd.wire.anthropic.errors import speaks_messages
from inferd.wire.ignored_fields import IgnoredFields

logger = logging.getLogger(__name__)

IGNORED_HEADER = "inferd-ignored"
_IGNORED_KEY = "ignored"
_ANTHROPIC_HEADER = "request-id"
_PROCESSING_HEADER = "openai-processing-ms"


def remember_ignored(request: Request) -> IgnoredFields:
    """Return the record of the request's ignored fields; from now on its answer, a refusal too, has a header that names
    them."""
    ignored = IgnoredFields(strict=request.app.state.strict)
    request.scope.setdefault("state", {})[_IGNORED_KEY] = ignored
    return ignored


def _ignored_headers(scope: Scope) -> dict[str, str]:
    """{} if everything was honoured."""
    ignored: IgnoredFields | None = scope["state"].get(_IGNORED_KEY)
    names = "" if ignored is None else ignored.header_value()
    if not names:
        return {}
    logger.debug("%s: ignored %s", scope["state"]["request_id"], names)
    return {IGNORED_HEADER: names}


class ResponseHeaders:
    """Puts a new id into `scope["state"]["request_id"]`; the response gets it, and whole milliseconds, as headers."""

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
                headers.update(retirement_headers(scope))
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
