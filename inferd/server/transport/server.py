"""uvicorn with its own order of a stop: refuse new requests, let the running ones end, then close."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from inferd.errors import ConfigError, OverloadedError
from inferd.server.errors import error_response
from inferd.server.transport.connections import MAX_CONNECTIONS, Connections
from inferd.server.transport.protocol import GuardedProtocol, HttpConfig, LocalProtocol, Timeouts
from inferd.serving.completions import RETRY_AFTER_S

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_RESERVED_FILES = 256
"""Open files beside connections: the ledger, its readers, models, webhooks."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HttpServer(uvicorn.Server):
    """HTTP server that drains before it stops.

    The first SIGINT, SIGTERM or SIGHUP starts the drain; a second SIGINT or SIGTERM ends it; later signals do nothing.

    sse-starlette cuts every stream once `should_exit` is set, and uvicorn cancels the running requests soon after.
    Both look like clients that hang up, so the flag is set only after all requests have ended.

    Args:
        drain: refuses new requests and waits for the running ones; a second signal cancels it.
        cut: ends the requests that still run, each with its error.
        tls: context for HTTPS, see `tls_context`; None: plain HTTP.
        connections: None: as many as the limit of open files allows, at most MAX_CONNECTIONS.
    """

    def __init__(
        self,
        app: ASGIApp,
        drain: Callable[[], Coroutine[Any, Any, None]],
        cut: Callable[[], None],
        tls: ssl.SSLContext | None = None,
        connections: Connections | None = None,
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        self._app = app
        config = HttpConfig(
            self._answer_or_refuse,
            Connections(_max_connections()) if connections is None else connections,
            timeouts,
            interface="asgi3",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # `Gate` reads them
            ssl_context_factory=None if tls is None else lambda config, default: tls,
        )
        super().__init__(config)
        self._drain = drain
        self._cut = cut
        self._answer_timeout_s = timeouts.answer_s
        self._local: socket.socket | None = None
        self._plain: socket.socket | None = None
        self._draining: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def is_stopping(self) -> bool:
        """True from the start of the drain on."""
        return self._draining is not None

    async def run_on(
        self, listener: socket.socket, local: socket.socket | None = None, plain: socket.socket | None = None
    ) -> None:
        """Serve until `stop`.

        Args:
            local: listening UNIX socket for requests of the operator, see `local_socket`.
            plain: further listening socket, of a loopback address, with plain HTTP also where the first has TLS.
        """
        self._local = local
        self._plain = plain
        await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the further sockets too, in plain HTTP. Their connections count toward the same limits."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        shared = self.config, self.server_state, self.lifespan.state
        if self._plain is not None:
            self.servers.append(await loop.create_server(partial(GuardedProtocol, *shared), sock=self._plain))
        if self._local is not None:
            self.servers.append(await loop.create_unix_server(partial(LocalProtocol, *shared), sock=self._local))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `handle_signals`: uvicorn would restore the handlers while engines and batches still end."""
        yield

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Stop the server at signals within the block, in the main thread. After the block the process only ends, and
        ignores signals. An event loop's own handlers would restore the default handlers in between."""
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.hang_up if number == signal.SIGHUP else self.stop)

        for number in _STOP_SIGNALS:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, handle)
        try:
            yield
        finally:
            for number in _STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    @staticmethod
    def release_signals() -> None:
        """Let the next SIGINT or SIGTERM end the process at once."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def stop(self) -> None:
        """Drain and stop; called again, end the drain."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
            self._stopping = asyncio.create_task(self._exit_after(self._draining))
        else:
            self._draining.cancel()

    def hang_up(self) -> None:
        """Drain because the terminal was closed. Called again, do nothing: a shell and the kernel may both send
        SIGHUP."""
        if not self.is_stopping:
            logger.warning("SIGHUP: the terminal was closed, or a supervisor asks for a stop")
            self.stop()

    async def _answer_or_refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application. If uvicorn cancels it at the end of a stop, answer with an error in JSON."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self.is_stopping:
                raise
            error = OverloadedError(
                "The server is shutting down; send the request again later.", retry_after_s=RETRY_AFTER_S
            )
            headers = {"x-request-id": scope["state"]["request_id"]}
            with suppress(RuntimeError):  # raised by uvicorn if an answer has begun
                await error_response(error, scope, headers)(scope, receive, send)

    async def _exit_after(self, draining: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait([draining])
            self._cut()
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks, timeout=self._answer_timeout_s)
            if not draining.cancelled():
                draining.result()
        finally:
            self.should_exit = True


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return the TLS context of a server: Python's defaults, TLS 1.2 and newer.

    Raises:
        ConfigError: the files are no certificate with its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An empty password: a server that starts unattended cannot ask for one.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"[server] tls_certificate: {certificate} and its key cannot be used: {error}") from error
    return context


def certificate_end_s(certificate: Path, key: Path | None) -> float:
    """Return the Unix time at which a certificate expires.

    Python parses only the dates of a peer's certificate, so a client in this process shakes hands with a server.

    Raises:
        ConfigError: as `tls_context` does, and if the certificate has expired or is not valid yet.
    """
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    server = tls_context(certificate, key).wrap_bio(ours, theirs, server_side=True)
    trusting.load_verify_locations(certificate)
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust the file without the authority that signed it
    client = trusting.wrap_bio(theirs, ours)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            message = f"[server] tls_certificate: {certificate}: {error.verify_message}; renew it"
            raise ConfigError(message) from error
    peer = client.getpeercert()
    assert peer is not None, "the handshake is over"
    return float(ssl.cert_time_to_seconds(str(peer["notAfter"])))


def _max_connections() -> int:
    """Raise the soft limit of open files as far as needed, and return the number of connections that it allows."""
    wanted = MAX_CONNECTIONS + _RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - _RESERVED_FILES))


def bind(host: str, port: int, remedy: str = "choose another --port or --host") -> socket.socket:
    """Return a listening socket; port 0 takes a free port. Raise ConfigError, with `remedy`, if the address cannot be
    bound."""
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
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; {remedy}") from error
    listener.setblocking(False)
    return listener
