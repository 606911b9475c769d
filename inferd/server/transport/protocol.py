"""uvicorn's HTTP/1.1 connection with limits: on the size of a request's head, on time, on how many may be open.

What a body may take is read_body's to say; here is what happens before and after an application sees a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from inferd.server.transport.connections import Connections
from inferd.server.transport.local_socket import OPERATOR, peer_actor
from inferd.serving.request_id import new_request_id
from inferd.wire.errors import encode_error

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers."""
HEAD_TIMEOUT_S = 30.0
"""From the connection, or the answer before, to the end of a request's headers: how long a connection may idle."""
LINGER_S = 5.0
"""How long the rest of a body that nobody wanted is read, so that its sender can read why; then the connection ends."""
STALL_S = 30.0
"""A reader who has let the buffers fill must take STALL_BYTES in that time, or counts as gone."""
STALL_BYTES = 16 * 1024
MAX_PIPELINED = 8

# Bytes that are no body: chunk sizes (6 for a chunk of one byte), trailers, heads. Twice, as they come in pieces.
_OVERHEAD_BYTES = 2 * MAX_HEAD_BYTES
_OVERHEAD_PER_BODY_BYTE = 6


class _UnservedRequestError(Exception):
    """Ends the parsing of a request whose head asks for what this server does not speak.

    Args:
        status: of the answer.
        message: of the answer's error.
        code: of the answer's error.
    """

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class HttpConfig(Config):
    """uvicorn's configuration, and what all connections of one server share."""

    def __init__(self, app: ASGIApp, connections: Connections, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(app, http=GuardedProtocol, ws="none", timeout_keep_alive=int(HEAD_TIMEOUT_S), **options)
        self.guarded_connections = connections


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Every wait on the client has an end: for a head, for the rest of a body, for its reading."""

    config: HttpConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connections = self.config.guarded_connections
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._num_bytes = 0
        self._num_body_bytes = 0
        self._head_is_open = False
        self._message_is_open = False
        self._closes = False
        self._wait_for_request()
        self._connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.closed(self)
        self._disarm()
        if self._stall is not None:
            self._stall.cancel()
        super().connection_lost(exc)

    def close(self) -> None:
        """For Connections: makes room."""
        self.transport.close()

    def cut(self) -> None:
        """For Connections: gives up a reader."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._num_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            unserved = error.__context__
            if isinstance(unserved, _UnservedRequestError):
                self._refuse(unserved.status, unserved.message, unserved.code)
            else:
                self.send_400_response("Invalid HTTP request received.")
        allowed = _OVERHEAD_BYTES + _OVERHEAD_PER_BODY_BYTE * self._num_body_bytes
        if self._num_bytes - self._num_body_bytes > allowed and not self.transport.is_closing():
            self._refuse(431, f"The request's headers are larger than {MAX_HEAD_BYTES // 1024} KiB.", "head_too_large")

    def _feed(self, data: bytes) -> None:
        """Parse `data`. A head that offers an upgrade is parsed once more without the offer: the parser takes all that
        follows such a head for another protocol, which would lose the body and read it as the next request."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._num_bytes = self._num_body_bytes = 0
        self._head_is_open = True

    def on_headers_complete(self) -> None:
        """Start the application, unless the head is to be parsed once more: see `_feed`."""
        self._check_framing()
        if self.parser.should_upgrade():
            return
        self._head_is_open = False
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
            return
        self._message_is_open = True
        self._disarm()
        self._connections.busy(self)
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > MAX_HEAD_BYTES:
            self.app = _head_too_large
        is_old = self.parser.get_http_version() == "1.0"
        if is_old or not self.parser.should_keep_alive():
            self.app = self._lingering(self.app)
        if is_old:
            self.app = _ended_by_closing(self.app)
        super().on_headers_complete()

    def _lingering(self, app: ASGIApp) -> ASGIApp:
        """Wrap `app` for a request whose connection ends with its answer: uvicorn would close at once, and the rest of
        a body that is still being sent would reset the connection before the answer is read."""

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_then_linger(message: Message) -> None:
                is_last = message["type"] == "http.response.body" and not message.get("more_body")
                if is_last and self._message_is_open:  # the last request of the connection: `cycle` is its own
                    self._closes = self.cycle.keep_alive = True
                await send(message)

            await app(scope, receive, send_then_linger)

        return run

    def _check_framing(self) -> None:
        """Raise _UnservedRequestError if the end of the body cannot be known for sure, or needs a decoder."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            message = f"HTTP/{version} is not supported here: use HTTP/1.1."
            raise _UnservedRequestError(505, message, "unknown_http_version")
        if self.parser.get_method() == b"CONNECT":
            raise _UnservedRequestError(501, "CONNECT is not supported: this server is no proxy.", "unknown_method")
        codings = b",".join(value for name, value in self.headers if name == b"transfer-encoding").strip().lower()
        if codings and version == "1.0":
            message = "HTTP/1.0 has no Transfer-Encoding: send the body with Content-Length, or use HTTP/1.1."
            raise _UnservedRequestError(400, message, "invalid_http")
        if codings not in (b"", b"chunked"):
            shown = codings.decode("ascii", "backslashreplace")[:64]
            message = f"The transfer coding {shown!r} is not supported: use chunked alone, or Content-Length."
            raise _UnservedRequestError(501, message, "unknown_transfer_coding")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._message_is_open:  # else a trailer, which nobody reads
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._num_body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._head_is_open:  # of a head that offers an upgrade: see _feed
            return
        self._message_is_open = False
        super().on_message_complete()
        if self._closes:
            self.transport.close()
        elif self.cycle.response_complete:
            self._wait_for_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        if self._message_is_open:
            self._arm(LINGER_S, self.transport.close)
        else:
            self._wait_for_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        unread_bytes = self.transport.get_write_buffer_size()
        self._watch_reader(unread_bytes)
        self._connections.stalls(self, unread_bytes)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.flows(self)
        if self._stall is not None:
            self._stall.cancel()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when it cannot parse a request."""
        self._refuse(400, msg, "invalid_http")

    def _wait_for_request(self) -> None:
        self._arm(HEAD_TIMEOUT_S, self._end_wait)
        self._connections.waits(self)

    def _end_wait(self) -> None:
        if self._head_is_open:
            self._refuse(408, "The request's headers did not come in time.", "request_timeout")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answers outside of any application, and ends the connection; without words if an answer is under way."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        body = encode_error(message, "invalid_request_error", code=code)
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}x-request-id: {new_request_id()}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _watch_reader(self, buffered_bytes: int) -> None:
        self._stall = self.loop.call_later(STALL_S, self._check_reader, buffered_bytes)

    def _check_reader(self, buffered_bytes: int) -> None:
        """Nothing is written while the buffer is full, so it only shrinks."""
        left_bytes = self.transport.get_write_buffer_size()
        if left_bytes > buffered_bytes - STALL_BYTES:
            self.transport.abort()
        else:
            self._watch_reader(left_bytes)


class LocalProtocol(GuardedProtocol):
    """Connection on the server's UNIX socket: marks its requests with the operator at its other end.

    The mark is set here alone. A TCP connection is a GuardedProtocol, so no header or path of a caller can set it.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = _from_operator(self.app, peer_actor(transport.get_extra_info("socket")))


def _from_operator(app: ASGIApp, actor: str) -> ASGIApp:
    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][OPERATOR] = actor
        await app(scope, receive, send)

    return run


def _ended_by_closing(app: ASGIApp) -> ASGIApp:
    """Wrap `app` for a client of HTTP/1.0, which knows no chunks: an answer without Content-Length goes out as it is,
    and ends with the connection. uvicorn closes that after each answer to HTTP/1.0."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        cycle: RequestResponseCycle = send.__self__  # type: ignore[attr-defined]
        has_length = False

        async def send_unchunked(message: Message) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                cycle.chunked_encoding = None if has_length else False
            elif not has_length:  # uvicorn counts what it sends against a length
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_unchunked)

    return run


async def _head_too_large(scope: Scope, receive: Receive, send: Send) -> None:
    body = encode_error(
        f"The request's headers are larger than {MAX_HEAD_BYTES // 1024} KiB.",
        "invalid_request_error",
        code="head_too_large",
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"x-request-id", new_request_id().encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body", "body": body})
