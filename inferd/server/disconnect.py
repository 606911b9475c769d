"""A client that hangs up while nothing has been sent to it yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response


class Cancellable(Protocol):
    """A completion, or several."""

    def cancel(self) -> None: ...


@asynccontextmanager
async def cancelled_on_disconnect(completion: Cancellable, request: Request) -> AsyncIterator[None]:
    """Cancels the completion if the client goes away, or if the block ends with an error. The body was read."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        completion.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except BaseException:
        completion.cancel()
        raise
    finally:
        watcher.cancel()


def client_closed() -> Response:
    """The answer to a request whose client has gone. Nobody reads it; the status is nginx's."""
    return Response(status_code=499)
