"""A client that costs next to nothing: it shares its cores with the server that it measures."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(slots=True)
class Answer:
    """One streamed answer. Times in seconds, from the moment the request was sent."""

    started_s: float = 0.0
    token_times_s: list[float] = field(default_factory=list)
    text: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    compute_ms: int = 0
    ended_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        return self.token_times_s[0] if self.token_times_s else self.ended_s

    @property
    def gaps_s(self) -> list[float]:
        times = self.token_times_s
        return [after - before for before, after in itertools.pairwise(times)]


async def stream_chat(base_url: str, key: str, body: dict[str, Any], answer: Answer) -> None:
    """POSTs a streamed chat completion and fills `answer` as it comes. Raises RuntimeError with what the server said
    if it refuses. Cancelled, it hangs up."""
    url = urlsplit(base_url)
    payload = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=2**20)
    head = (
        f"POST {url.path}/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    answer.started_s = time.perf_counter()
    writer.write(head.encode() + payload)
    try:
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status.decode().strip()}: {(await reader.read(4000)).decode(errors='replace')}")
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                _take(answer, json.loads(line[6:]))
            elif line.startswith(b"data: [DONE]"):
                break
        answer.ended_s = time.perf_counter() - answer.started_s
        # Where a server reports no usage, one event is one token.
        answer.completion_tokens = answer.completion_tokens or len(answer.token_times_s)
    finally:
        writer.close()


def _take(answer: Answer, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        raise RuntimeError(str(chunk["error"]))
    for choice in chunk.get("choices", ()):
        if text := choice["delta"].get("content"):
            answer.token_times_s.append(time.perf_counter() - answer.started_s)
            answer.text += text
    if usage := chunk.get("usage"):
        answer.prompt_tokens = usage["prompt_tokens"]
        answer.completion_tokens = usage["completion_tokens"]
        answer.compute_ms = usage.get("compute_ms", 0)
        answer.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole HTTP answer.

    Attributes:
        status: 0 if the connection ended without an answer.
        headers: names in lower case.
        body: without the framing of chunks.
        rest: what came behind the answer on the same connection.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes = b""

    @property
    def events(self) -> list[str]:
        """The data of a stream's events."""
        lines = self.body.decode(errors="replace").splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def request_bytes(
    root: str, method: str, path: str, key: str, payload: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A request whose connection is closed after its answer, unless `headers` say otherwise."""
    fields = {
        "host": urlsplit(root).netloc,
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "content-length": str(len(payload)),
        "connection": "close",
    } | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + payload


@asynccontextmanager
async def connection(root: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to `http://HOST:PORT` that is closed at the end, without waiting for the other side."""
    url = urlsplit(root)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=2**24)
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(root: str, sent: bytes, *, patience_s: float = 600.0) -> Reply:
    """Sends a request and returns all that comes back, until the other side closes or `patience_s` have passed.
    Cancelled, it hangs up."""
    received = bytearray()
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(patience_s), connection(root) as (reader, writer):
            writer.write(sent)
            while piece := await reader.read(2**16):
                received += piece
    return parse_reply(bytes(received))


def parse_reply(received: bytes) -> Reply:
    """The first answer in `received`, and what follows it."""
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/"):
        return Reply(0, {}, b"", received)
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body, rest = _read_chunks(rest)
    else:
        size = int(headers.get("content-length", 0))
        body, rest = rest[:size], rest[size:]
    return Reply(int(status_line.split()[1]), headers, body, rest)


def _read_chunks(framed: bytes) -> tuple[bytes, bytes]:
    """The bytes of all chunks, and what follows the last one."""
    pieces, at = [], 0
    while (line_end := framed.find(b"\r\n", at)) >= 0:
        size = int(framed[at:line_end], 16)
        pieces.append(framed[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2
        if size == 0:
            break
    return b"".join(pieces), framed[at:]
