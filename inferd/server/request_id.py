"""`x-request-id` on every response: the server's own, never the client's (BILLING R22)."""

from __future__ import annotations

import secrets
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "req_"


def new_request_id() -> str:
    """`req_`, 12 hex digits of the time in ms, 20 at random. New ids lie together in the ledger's indexes, so a commit
    writes few pages however long the books are."""
    return f"{PREFIX}{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


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
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
