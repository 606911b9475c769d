"""Idle connections and unread streams over a real socket: other clients are served as without them, and their memory is
bounded. Their cost in time: `scripts/bench serve held-connections`."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from inferd.server.streaming import EventStream
from inferd.server.transport.connections import Connections
from inferd.server.transport.protocol import Timeouts
from tests.server.raw_client import RawClient, head, raw_client
from tests.server.transport.test_server import Served, served_on_socket
from tests.serving.provider import PRICED, Provider, chat_body, running_provider

pytestmark = pytest.mark.anyio

N_IDLE = 200
N_READERS = 10
N_TOKENS = 200
PROTOCOL_BUFFER_BYTES = 64 * 1024
"""asyncio's and uvloop's high-water mark: above it, writers to a connection wait."""


class Unread:
    """Stream whose client reads nothing. Its segments and buffers are small, so that the server's are soon full."""

    def __init__(self, served: Served, provider: Provider) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self._socket.connect(("127.0.0.1", served.port))
        fields = {"stream": True, "max_tokens": N_TOKENS, "logprobs": True, "top_logprobs": 20}
        body = json.dumps(chat_body(**fields)).encode()
        self._socket.sendall(head(provider, content_length=len(body)) + body)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
async def served(provider: Provider) -> AsyncIterator[Served]:
    provider.grant(10**12)
    async with served_on_socket(provider) as served:
        yield served


async def idle(stack: AsyncExitStack, served: Served, provider: Provider, n: int) -> list[RawClient]:
    """Return idle clients: half have sent nothing, half have got an answer."""
    clients = []
    for number in range(n):
        client = await stack.enter_async_context(raw_client(served.port))
        if number % 2:
            await client.send(head(provider, "/v1/models", "GET"))
            assert (await client.answer())[0] == 200
        clients.append(client)
    return clients


def buffered_bytes(served: Served) -> list[int]:
    return [each.transport.get_write_buffer_size() for each in served.server.server_state.connections]


async def test_unread_streams_are_computed_and_billed_and_hold_at_most_a_buffer(provider, served):
    async with AsyncExitStack() as stack:
        await idle(stack, served, provider, N_IDLE)
        for _ in range(N_READERS):
            stack.callback(Unread(served, provider).close)
        await provider.until(lambda: len(provider.rows("usage")) == N_READERS)
        rows = provider.rows("usage")
        assert {(row["status"], row["completion_tokens"]) for row in rows} == {("completed", N_TOKENS)}
        await provider.idle()  # the engine and the ledger have ended them
        sizes = buffered_bytes(served)
        assert len(sizes) >= N_IDLE + N_READERS
        chunk_bytes = 4096  # of one token
        assert sum(size > 0 for size in sizes) == N_READERS, "each of them has filled the kernel's buffers"
        assert max(sizes) <= PROTOCOL_BUFFER_BYTES + chunk_bytes
        other = await served.client.post("/v1/chat/completions", json=chat_body(max_tokens=3))
        assert other.json()["usage"]["completion_tokens"] == 3


async def test_unread_streams_are_cut_after_a_while(provider, monkeypatch):
    monkeypatch.setattr(EventStream, "send_timeout_s", 0.1)
    provider.grant(10**12)
    async with served_on_socket(provider, timeouts=Timeouts(stall_s=0.2)) as served, AsyncExitStack() as stack:
        for _ in range(N_READERS):
            stack.callback(Unread(served, provider).close)
        await provider.until(lambda: len(provider.rows("usage")) == N_READERS)
        await provider.until(lambda: not buffered_bytes(served))


async def rows_of_a_request(provider: Provider, n_idle: int, n_unread: int) -> list[int]:
    """Return the rows of each step of a request, beside idle connections and unread streams."""
    async with served_on_socket(provider) as served, AsyncExitStack() as stack:
        await idle(stack, served, provider, n_idle)
        for _ in range(n_unread):
            stack.callback(Unread(served, provider).close)
        await provider.until(lambda: len(provider.rows("usage")) == n_unread)
        n_before = len(provider.runner.rows_per_step)
        body = {"model": PRICED, "prompt": "hello", "max_tokens": 20}
        assert (await served.client.post("/v1/completions", json=body)).status_code == 200
        return provider.runner.rows_per_step[n_before:]


async def test_request_beside_held_connections_takes_as_many_steps_as_alone(tmp_path, monkeypatch):
    found = []
    for n_idle, n_unread in ((0, 0), (N_IDLE, N_READERS)):
        async with running_provider(tmp_path / str(n_idle), monkeypatch, credit_nanousd=10**12) as provider:
            found.append(await rows_of_a_request(provider, n_idle, n_unread))
    assert found[0] == found[1]


async def test_idle_connections_above_the_limit_never_end_a_request(provider):
    connections = Connections(max_open=50)
    async with served_on_socket(provider, connections=connections) as served, AsyncExitStack() as stack:
        provider.runner.hold_back()
        asked = asyncio.create_task(served.client.post("/v1/chat/completions", json=chat_body(max_tokens=5)))
        await provider.until(lambda: provider.runner.waits)
        for _ in range(N_IDLE):
            await stack.enter_async_context(raw_client(served.port))
        await provider.until(lambda: len(served.server.server_state.connections) <= 50)
        provider.runner.let_go()
        assert (await asked).status_code == 200, "a connection with a request is never closed"
        assert (await served.client.post("/v1/chat/completions", json=chat_body(max_tokens=1))).status_code == 200


async def test_unread_answers_above_the_limit_of_bytes_are_cut(provider, monkeypatch):
    monkeypatch.setattr("inferd.server.endpoints.models.encode_model_list", lambda models, **_: b" " * 2**24)
    connections = Connections(100, 2**24)
    async with served_on_socket(provider, connections=connections) as served, AsyncExitStack() as stack:
        for _ in range(N_READERS):
            client = await stack.enter_async_context(raw_client(served.port))
            await client.send(head(provider, "/v1/models", "GET"))
        await provider.until(lambda: len(buffered_bytes(served)) < N_READERS and sum(buffered_bytes(served)) <= 2**24)
        assert any(buffered_bytes(served)), "one of them may be slow"
