"""uvicorn's HTTP/1.1 connection with limits on the size of heads, on time and on the number of connections.

The limits hold before and after the application handles a request. `read_body` limits the body.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
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
"""Limit on request line and headers together."""
MIN_READ_BYTES = 16 * 1024
"""Bytes that a client with full buffers must read within `Timeouts.stall_s`."""
MAX_PIPELINED = 8

# Bytes outside a body: chunk sizes (6 for a chunk of one byte), trailers, heads. Doubled, as they arrive in pieces.
_OVERHEAD_BYTES = 2 * MAX_HEAD_BYTES
_OVERHEAD_PER_BODY_BYTE = 6
_HEAD_TOO_LARGE = (
    f"The request's headers are larger than {MAX_HEAD_BYTES // 1024} KiB, the most allowed; send fewer or shorter ones."
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of connections.

    Attributes:
        head_s: from the connection, or the previous answer, to the end of a request's headers, so also idle time.
        linger_s: for the rest of a refused body, which is read so that its sender can read the answer.
        stall_s: for a client with full buffers to read MIN_READ_BYTES, before the connection is aborted.
        close_s: at a stop, until the requests that still run are cancelled.
        answer_s: at a stop, for writing answers that wait for nothing else.
    """

    head_s: float = 30.0
    linger_s: float = 5.0
    stall_s: float = 30.0
    close_s: int = 5
    answer_s: float = 2.0


class _UnservedRequestError(Exception):
    """End of the parsing of a request whose head needs a feature of HTTP that this server lacks.

    Args:
        status: status of the answer.
        message: message of the answer's error.
        code: code of the answer's error.
    """

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class HttpConfig(Config):
    """uvicorn's configuration, and the state that all connections of one server share."""

    def __init__(
        self,
        app: ASGIApp,
        connections: Connections,
        timeouts: Timeouts,
        **options: Any,  # noqa: ANN401 - uvicorn's own
    ) -> None:
        super().__init__(
            app,
            http=GuardedProtocol,
            ws="none",
            timeout_keep_alive=math.ceil(timeouts.head_s),
            timeout_graceful_shutdown=timeouts.close_s,
            **options,
        )
        self.guarded_connections = connections
        self.timeouts = timeouts


class GuardedProtocol(HttpToolsProtocol):
    """One HTTP/1.1 connection. Each wait for the client has a time limit: for heads, refused bodies and reading."""

    config: HttpConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connections = self.config.guarded_connections
        self._timeouts = self.config.timeouts
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
        """Close the connection, for `Connections`, which needs room."""
        self.transport.close()

    def cut(self) -> None:
        """Abort the connection, for `Connections`, as its client does not read."""
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
            self._refuse(431, _HEAD_TOO_LARGE, "head_too_large")

    def _feed(self, data: bytes) -> None:
        """Parse `data`. A head that offers an upgrade is parsed again without the offer: the parser treats all bytes
        after such a head as another protocol, which would lose the body and read it as the next request."""
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
        """Start the application, unless the head is to be parsed again (see `_feed`)."""
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
        """Return `app` for a request whose connection ends with its answer. uvicorn would close at once, and the rest
        of a body that is still being sent would reset the connection before the answer is read."""

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_then_linger(message: Message) -> None:
                is_last = message["type"] == "http.response.body" and not message.get("more_body")
                if is_last and self._message_is_open:  # `cycle` is this request's: no other follows on the connection
                    self._closes = self.cycle.keep_alive = True
                await send(message)

            await app(scope, receive, send_then_linger)

        return run

    def _check_framing(self) -> None:
        """Raise _UnservedRequestError if the end of the body is ambiguous or the body needs a decoder."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            message = f"HTTP/{version} is not supported; use HTTP/1.1."
            raise _UnservedRequestError(505, message, "unknown_http_version")
        if self.parser.get_method() == b"CONNECT":
            raise _UnservedRequestError(501, "CONNECT is not supported, as this server is no proxy.", "unknown_method")
        codings = b",".join(value for name, value in self.headers if name == b"transfer-encoding").strip().lower()
        if codings and version == "1.0":
            message = "HTTP/1.0 has no Transfer-Encoding; send the body with Content-Length, or use HTTP/1.1."
            raise _UnservedRequestError(400, message, "invalid_http")
        if codings not in (b"", b"chunked"):
            shown = codings.decode("ascii", "backslashreplace")[:64]
            message = f"The transfer coding {shown!r} is not supported; use chunked alone, or Content-Length."
            raise _UnservedRequestError(501, message, "unknown_transfer_coding")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._message_is_open:  # else it is a trailer, which is ignored
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._num_body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._head_is_open:  # the head offers an upgrade, see `_feed`
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
            self._arm(self._timeouts.linger_s, self.transport.close)
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
        """Refuse a request that uvicorn cannot parse."""
        self._refuse(400, msg, "invalid_http")

    def _wait_for_request(self) -> None:
        self._arm(self._timeouts.head_s, self._end_wait)
        self._connections.waits(self)

    def _end_wait(self) -> None:
        if self._head_is_open:
            message = (
                f"The request's headers did not arrive within {self._timeouts.head_s:g} s; send the request again."
            )
            self._refuse(408, message, "request_timeout")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer with an error without the application and close the connection; if an answer has begun, abort it."""
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
        self._stall = self.loop.call_later(self._timeouts.stall_s, self._check_reader, buffered_bytes)

    def _check_reader(self, buffered_bytes: int) -> None:
        """Abort the connection if its client has read too little. The full buffer only shrinks: writers wait for it."""
        left_bytes = self.transport.get_write_buffer_size()
        if left_bytes > buffered_bytes - MIN_READ_BYTES:
            self.transport.abort()
        else:
            self._watch_reader(left_bytes)


class LocalProtocol(GuardedProtocol):
    """Connection on the server's UNIX socket, which marks its requests with the operator at its other end.

    Only this class sets the mark. A TCP connection is a GuardedProtocol, so no header or path of a caller can set it.
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
    """Return `app` for a client of HTTP/1.0, which has no chunks: an answer without Content-Length is sent without
    framing and ends with the connection, which uvicorn closes after each answer to HTTP/1.0."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        cycle: RequestResponseCycle = send.__self__  # type: ignore[attr-defined]
        has_length = False

        async def send_unchunked(message: Message) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                cycle.chunked_encoding = None if has_length else False
            elif not has_length:  # uvicorn checks the sent bytes against this length
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_unchunked)

    return run


async def _head_too_large(scope: Scope, receive: Receive, send: Send) -> None:
    body = encode_error(_HEAD_TOO_LARGE, "invalid_request_error", code="head_too_large")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"x-request-id", new_request_id().encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body", "body": body})
