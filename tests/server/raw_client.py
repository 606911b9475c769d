"""Client that sends raw bytes to a server in the same event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.serving.provider import PATIENCE_S, Provider


class RawClient:
    """Every read has an end, so that a server that hangs fails the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def flood(self, data: bytes, n_times: int) -> bool:
        """Send `data` repeatedly, and return whether the server closed the connection."""
        try:
            for _ in range(n_times):
                await self.send(data)
        except ConnectionError:
            return True
        return False

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the next answer, which has a length."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            return int(first.split(" ")[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def error(self) -> tuple[int, str]:
        """Return status and code of the next answer, and check that it has a request id."""
        status, headers, body = await self.answer()
        assert headers["x-request-id"].startswith("req_")
        return status, json.loads(body)["error"]["code"]

    async def rest(self) -> bytes:
        """Return all bytes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""


@asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


def head(provider: Provider | None, path: str = "/v1/chat/completions", method: str = "POST", **headers: Any) -> bytes:
    """Return a request up to its body; `provider` None: without a key."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    if provider is not None:
        lines.append(f"authorization: Bearer {provider.key}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
