"""uvicorn, stopped in our order: refuse new requests, let the live ones end, then close."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from inferd.errors import ConfigError

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_CLOSE_TIMEOUT_S = 5


class HttpServer(uvicorn.Server):
    """The first SIGINT or SIGTERM drains, a second one ends at once.

    sse-starlette would cut every stream at the first signal: it watches `should_exit`, which is set only after the
    drain.
    """

    def __init__(self, app: ASGIApp, drain: Callable[[], Awaitable[None]]) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_TIMEOUT_S,
        )
        super().__init__(config)
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop, from the start of the drain on."""
        return self._draining is not None

    async def run_on(self, listener: socket.socket) -> None:
        """Serves until it is told to stop."""
        self._loop = asyncio.get_running_loop()
        await self.serve(sockets=[listener])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """In the main thread, between any two bytecodes: does nothing but wake the loop."""
        assert self._loop is not None, "signals are handled while it serves"
        self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Drains and ends; called again, ends without waiting."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain_and_exit())
        else:
            self.should_exit = True
            self.force_exit = True

    async def _drain_and_exit(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ConfigError if the address cannot be had."""
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port or --host"
        ) from error
    listener.setblocking(False)
    return listener
