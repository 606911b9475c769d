"""`x-request-id` on every response: the server's own, never the client's (BILLING R22)."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferd.anthropic.errors import speaks_messages
from inferd.serving.request_id import new_request_id

_ANTHROPIC_HEADER = "request-id"


class RequestIdMiddleware:
    """Puts a new id into `scope["state"]["request_id"]` and into the response's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if speaks_messages(scope["path"]):
                    headers[_ANTHROPIC_HEADER] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
