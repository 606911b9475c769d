"""Request to an ASGI application whose client can hang up or stop reading at any time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from tests.serving.provider import PATIENCE_S


class AsgiCall:
    """As uvicorn does it: after a hang-up `receive` says so for ever and `send` does nothing."""

    def __init__(self, app: ASGIApp, method: str, path: str, *, headers: dict[str, str], body: bytes = b"") -> None:
        self.status: int | None = None
        self.headers = Headers()
        self.body = b""
        self.complete = False
        self._to_send = [{"type": "http.request", "body": body, "more_body": False}]
        self._gone = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self._changed = asyncio.Event()
        raw_headers = [
            (name.lower().encode(), value.encode()) for name, value in ({"host": "localhost"} | headers).items()
        ]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": raw_headers,
            "client": ("127.0.0.1", 1),
            "server": ("inferd", 80),
        }
        self._task = asyncio.create_task(app(scope, self._receive, self._send))

    def hang_up(self) -> None:
        self._gone.set()
        self._reads.set()

    def stop_reading(self) -> None:
        """Let the socket's buffers be full from now on."""
        self._reads.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds, and fail if the answer ends before."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self._task.done(), f"it ended with {self.status} {self.body!r}"
                self._changed.clear()
                waiter = asyncio.create_task(self._changed.wait())
                await asyncio.wait([waiter, self._task], return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()

    async def ended(self) -> None:
        """Wait until the application has ended, and raise its exception."""
        async with asyncio.timeout(PATIENCE_S):
            await self._task

    @property
    def events(self) -> list[str]:
        """The data of the events that came so far."""
        assert self.body.endswith(b"\n\n") or not self.body, "whole events only"
        lines = self.body.decode().split("\n\n")[:-1]
        assert all(line.startswith("data: ") and "\n" not in line for line in lines), "an event is one line of data"
        return [line.removeprefix("data: ") for line in lines]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(event) for event in self.events if event != "[DONE]"]

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", [])]
        return "".join(choice["delta"].get("content", "") for choice in choices)

    async def _receive(self) -> Message:
        if self._to_send:
            return self._to_send.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._reads.wait()
        if self._gone.is_set():
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = Headers(raw=message["headers"])
        else:
            self.body += message["body"]
            if not message.get("more_body"):
                self.complete = True
                self._gone.set()
        self._changed.set()
