"""What every response says, whoever answers: its id, the server's own and never the client's (BILLING R22), and how
long it took until its headers; and whether the deployment goes that it has to do with."""

from __future__ import annotations

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferd.anthropic.errors import speaks_messages
from inferd.server.retirement_notice import retirement_headers
from inferd.serving.request_id import new_request_id

_ANTHROPIC_HEADER = "request-id"
_PROCESSING_HEADER = "openai-processing-ms"


class ResponseHeaders:
    """Puts a new id into `scope["state"]["request_id"]`; the response gets it, and whole milliseconds, as headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
                if speaks_messages(scope["path"]):
                    headers[_ANTHROPIC_HEADER] = request_id
                else:
                    headers[_PROCESSING_HEADER] = str((time.monotonic_ns() - received_ns) // 1_000_000)
            await send(message)

        await self._app(scope, receive, send_with_headers)
