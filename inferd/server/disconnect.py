"""How an answer that does not come to its end ends its completion: the client hangs up, or the server fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from inferd.errors import GenerationError, InferdError
from inferd.server.errors import INTERNAL_MESSAGE

logger = logging.getLogger(__name__)


class Cancellable(Protocol):
    """A completion, or several."""

    def cancel(self) -> None: ...

    def cut(self, error: InferdError) -> None: ...


@asynccontextmanager
async def on_disconnect(cancel: Callable[[], object], request: Request) -> AsyncIterator[None]:
    """Call `cancel` if the client goes away before the block ends. The body was read."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


@asynccontextmanager
async def cancelled_on_disconnect(completion: Cancellable, request: Request) -> AsyncIterator[None]:
    """Cancel the completion if the client goes away. A bug in the block ends it unbilled (BILLING R16). The body was
    read."""
    try:
        async with on_disconnect(completion.cancel, request):
            yield
    except asyncio.CancelledError:  # a stop has cut the completion off before
        completion.cancel()
        raise
    except BaseException:
        completion.cut(GenerationError(INTERNAL_MESSAGE))
        raise


def failed_stream(completion: Cancellable, error: Exception) -> InferdError:
    """Return the error for the reader of a stream that `error` has ended. A bug is logged, and ends the completion
    unbilled."""
    if isinstance(error, InferdError):
        return error
    logger.error("a stream has failed", exc_info=error)
    failure = GenerationError(INTERNAL_MESSAGE)
    completion.cut(failure)
    return failure


def client_closed() -> Response:
    """The answer to a request whose client has gone. Nobody reads it; the status is nginx's."""
    return Response(status_code=499)
