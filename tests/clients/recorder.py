"""A proxy between a client and a server that keeps each request and its answer."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 120.0
"""How long an answer may take before it is called a hang; asserts nothing about speed."""
GENERATING = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
"""Paths of requests that are billed."""
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "host")
_REPLACED = (*_HOP_BY_HOP, "content-length", "accept-encoding")
"""Headers of a request that do not pass: the answer is read, so it must not be compressed."""
_CHUNK_BYTES = 65536


@dataclass(frozen=True)
class Exchange:
    """A request and its whole answer.

    Attributes:
        target: path and query.
        headers: of the request, names in lower case.
        answer_headers: names in lower case.
    """

    method: str
    target: str
    body: bytes
    status: int
    answer: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    answer_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Path without the query."""
        return self.target.partition("?")[0]

    @property
    def request_id(self) -> str:
        """Id that the server gave the request, or ""."""
        return self.answer_headers.get("x-request-id") or self.answer_headers.get("request-id") or ""

    @property
    def ignored(self) -> str:
        """Fields that the server said it ignored."""
        return self.answer_headers.get("inferd-ignored", "")

    @property
    def is_billed(self) -> bool:
        return self.path in GENERATING

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Prompt and completion tokens by the answer's `usage`; None if it has none."""
        found: dict[str, Any] = {}
        for event in self.events:
            holder = event.get("response") or event.get("message") or event
            found |= holder.get("usage") or {}
        if not found:
            return None
        if "prompt_tokens" in found:
            return found["prompt_tokens"], found["completion_tokens"]
        cached = found.get("cache_read_input_tokens", 0)  # the Messages API counts them apart
        return found["input_tokens"] + cached, found["output_tokens"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a stream, or the one object of a whole answer; nothing of an answer that is no JSON."""
        try:
            if not self.is_stream:
                whole = json.loads(self.answer)
                return [whole] if isinstance(whole, dict) else []
            lines = self.answer.decode().splitlines()
            data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
            return [json.loads(text) for text in data if text != "[DONE]"]
        except ValueError:
            return []

    @property
    def is_stream(self) -> bool:
        return self.answer.startswith((b"data:", b"event:", b":"))

    def __str__(self) -> str:
        return f"{self.method} {self.path} -> {self.status}: {self.answer[:500].decode(errors='replace')}"


class Recorder:
    """Attributes:
    base_url: for clients; without /v1.
    """

    def __init__(self, upstream: str, port: int) -> None:
        self.upstream = upstream
        self.base_url = f"http://127.0.0.1:{port}"
        self._changed = threading.Condition()
        self._num_open = 0
        self._exchanges: list[Exchange] = []

    @property
    def exchanges(self) -> list[Exchange]:
        """All of them, once none is under way, in the order of their ends, without those that the client hung up on."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._num_open == 0, PATIENCE_S), "an answer never ends"
            return list(self._exchanges)

    @contextmanager
    def under_way(self) -> Iterator[list[Exchange]]:
        """An exchange; its handler puts it into the list."""
        with self._changed:
            self._num_open += 1
        ended: list[Exchange] = []
        try:
            yield ended
        finally:
            with self._changed:
                self._num_open -= 1
                self._exchanges += ended
                self._changed.notify_all()

    @property
    def refused(self) -> list[str]:
        """Description of each exchange that ended in an error. Claude Code's `HEAD /` only looks for a server."""
        return [str(each) for each in self.exchanges if each.status >= 400 and each.method != "HEAD"]

    @property
    def billed(self) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.is_billed]


class _Handler(BaseHTTPRequestHandler):
    """Passes one request on. HTTP/1.0: the end of the answer is the end of the connection."""

    recorder: Recorder

    def _pass_on(self) -> None:
        with self.recorder.under_way() as ended:
            ended.append(self._exchange())

    def _exchange(self) -> Exchange:
        """Send the request on and its answer back."""
        body = self._body()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _REPLACED}
        url = urlsplit(self.recorder.upstream)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        upstream = kind(url.netloc, timeout=PATIENCE_S)
        upstream.request(self.command, self.path, body or None, headers)
        response = upstream.getresponse()
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()
        answer = b""
        while chunk := response.read1(_CHUNK_BYTES):
            answer += chunk
            self.wfile.write(chunk)
        upstream.close()
        answered = {name.lower(): value for name, value in response.getheaders()}
        asked = {name.lower(): value for name, value in self.headers.items()}
        return Exchange(self.command, self.path, body, response.status, answer, asked, answered)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while num_bytes := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(num_bytes)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return body

    do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = _pass_on  # noqa: N815 - of http.server

    def log_message(self, format: str, *args: Any) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that hangs up."""


@contextmanager
def recording(upstream: str, port: int = 0) -> Iterator[Recorder]:
    """A proxy to `upstream`, a URL without a path, while the context lasts.

    Args:
        port: of this machine; 0 chooses a free one.
    """
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", port), handler)
    recorder = handler.recorder = Recorder(upstream, server.server_port)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
