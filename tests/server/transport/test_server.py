"""The server on a real socket: stops, TLS, and clients that hang up or do not read."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferd.errors import ConfigError
from inferd.server.streaming import EventStream
from inferd.server.transport.connections import Connections
from inferd.server.transport.protocol import Timeouts
from inferd.server.transport.server import HttpServer, bind, tls_context
from inferd.wire.answer_deltas import ContentDelta
from inferd.wire.openai.chat_response import ChatResponse
from tests.serving.provider import FREE, PATIENCE_S, Provider, chat_body, prompt_of

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())
TLS = Path(__file__).parents[1] / "tls"  # a certificate of localhost's own, good for a hundred years


def trusted() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(TLS / "certificate.pem"))


class Served:
    """A provider behind a socket."""

    def __init__(
        self, provider: Provider, tls: ssl.SSLContext | None, connections: Connections | None, timeouts: Timeouts
    ) -> None:
        async def drain() -> None:
            provider.completions.close()
            await provider.completions.wait_idle(PATIENCE_S)

        self.listener = bind("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.server = HttpServer(provider.app, drain, provider.completions.cut_off, tls, connections, timeouts)
        headers = {"authorization": f"Bearer {provider.key}"}
        base_url = f"http://127.0.0.1:{self.port}" if tls is None else f"https://localhost:{self.port}"
        self.client = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=PATIENCE_S, verify=trusted())
        self.task = asyncio.create_task(self.server.run_on(self.listener))

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.task


@asynccontextmanager
async def served_on_socket(
    provider: Provider,
    tls: ssl.SSLContext | None = None,
    connections: Connections | None = None,
    timeouts: Timeouts = Timeouts(),
) -> AsyncIterator[Served]:
    served = Served(provider, tls, connections, timeouts)
    with closing(served.listener):
        try:
            await provider.until(lambda: served.server.started)
            yield served
        finally:
            await served.client.aclose()
            provider.runner.let_go()
            if not served.task.done():
                served.server.stop()
            await served.ended()


async def test_server_on_a_socket_answers_and_ends_at_a_stop(provider):
    async with served_on_socket(provider) as served:
        assert (await served.client.get("/health")).json() == {"status": "ok"}
        response = await served.client.post("/v1/chat/completions", json=chat_body(max_tokens=3))
        assert response.json()["usage"]["completion_tokens"] == 3
        served.server.stop()
        await served.ended()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port))


async def test_stream_at_a_stop_is_finished_before_the_server_ends(provider):
    provider.runner.hold_back()
    async with (
        served_on_socket(provider) as served,
        served.client.stream("POST", "/v1/chat/completions", json=chat_body(stream=True, max_tokens=9)) as response,
    ):
        lines = response.aiter_lines()
        assert "assistant" in await anext(lines)
        served.server.stop()
        await provider.until(lambda: provider.completions.is_closed)
        late = await served.client.post("/v1/chat/completions", json=chat_body(max_tokens=1))
        assert late.status_code == 503
        assert not served.task.done()
        provider.runner.let_go()
        rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        await served.ended()
    assert provider.usage_row()["status"] == "completed"


async def test_second_stop_ends_the_drain(provider):
    provider.runner.hold_back()
    async with (
        served_on_socket(provider) as served,
        served.client.stream("POST", "/v1/chat/completions", json=chat_body(stream=True, max_tokens=9)) as response,
    ):
        lines = response.aiter_lines()
        await anext(lines)
        await provider.until(lambda: provider.runner.waits)
        served.server.stop()
        served.server.stop()
        await served.ended()
        assert provider.hold_states() == ["held"], "the engine still runs it"
        provider.runner.let_go()
        await provider.idle()
        assert provider.hold_states() == ["voided"]
        last = [line async for line in lines if line][-1]
        assert "you were not billed" in json.loads(last.removeprefix("data: "))["error"]["message"]


async def test_upload_that_a_stop_interrupts_is_refused_in_json(provider):
    async with served_on_socket(provider, timeouts=Timeouts(close_s=0, answer_s=0.0)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nAuthorization: Bearer %s\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n" % provider.key.encode()
        )
        await provider.until(lambda: bool(served.server.server_state.tasks))
        served.server.stop()
        await served.ended()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"x-request-id: " in head
    assert json.loads(body)["error"]["code"] == "server_overloaded"


async def test_stream_whose_client_hangs_up_is_cancelled(provider):
    provider.runner.hold_back()
    async with served_on_socket(provider) as served:
        async with served.client.stream(
            "POST", "/v1/chat/completions", json=chat_body(stream=True, max_tokens=200)
        ) as response:
            lines = response.aiter_lines()
            await anext(lines)
            provider.runner.allow(3)
            await provider.until(lambda: len(provider.runner.rows_per_step) == 3 and provider.runner.waits)
        await provider.until(lambda: provider.num_in_inbox == 1)
        provider.runner.let_go()
        await provider.idle()
        row = provider.usage_row()
        assert (row["status"], row["prompt_tokens"], row["completion_tokens"]) == ("cancelled", N_PROMPT, 4)


async def test_whole_answer_whose_client_hangs_up_is_cancelled(provider):
    provider.runner.hold_back()
    async with served_on_socket(provider) as served:
        asked = asyncio.create_task(served.client.post("/v1/chat/completions", json=chat_body(max_tokens=200)))
        await provider.until(lambda: provider.runner.waits)
        asked.cancel()
        await asyncio.wait([asked])
        await provider.until(lambda: provider.num_in_inbox == 1)
        provider.runner.let_go()
        await provider.idle()
        row = provider.usage_row()
        assert (row["status"], row["completion_tokens"]) == ("cancelled", 1)


async def test_stream_whose_client_does_not_read_is_cancelled(provider, monkeypatch):
    monkeypatch.setattr(EventStream, "send_timeout_s", 0.2)
    # A short answer does not fill a socket's buffers, so each chunk is made a megabyte.
    delta_chunk = ChatResponse.delta_chunk

    def long_chunk(self, delta, logprobs, index):
        return delta_chunk(self, ContentDelta(delta.text * 2**20), logprobs, index)

    monkeypatch.setattr(ChatResponse, "delta_chunk", long_chunk)
    provider.runner.hold_back()
    async with served_on_socket(provider) as served:
        reader = socket.create_connection(("127.0.0.1", served.port))
        with closing(reader):
            reader.sendall(_raw_request(provider, stream=True, max_tokens=200))
            await provider.until(lambda: provider.runner.waits)
            provider.runner.allow(30)
            await provider.until(lambda: provider.num_in_inbox == 1)
            provider.runner.let_go()
            await provider.idle()
        row = provider.usage_row()
        assert row["status"] == "cancelled"
        assert row["completion_tokens"] < 200


def _raw_request(provider: Provider, **fields: Any) -> bytes:
    body = json.dumps(chat_body(**fields)).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        b"Authorization: Bearer %s\r\n\r\n%s" % (len(body), provider.key.encode(), body)
    )


async def test_free_request_at_a_stop_is_finished(provider):
    provider.runner.hold_back()
    async with served_on_socket(provider) as served:
        asked = asyncio.create_task(served.client.post("/v1/chat/completions", json=chat_body(model=FREE)))
        await provider.until(lambda: provider.runner.waits)
        served.server.stop()
        provider.runner.let_go()
        assert (await asked).status_code == 200
        await served.ended()


async def test_server_with_a_certificate_answers_only_over_tls(provider):
    tls = tls_context(TLS / "certificate.pem", TLS / "key.pem")
    async with served_on_socket(provider, tls) as served:
        response = await served.client.post("/v1/chat/completions", json=chat_body(max_tokens=2, stream=True))
        assert response.status_code == 200
        assert response.text.endswith("data: [DONE]\n\n")
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(f"http://127.0.0.1:{served.port}/health")


@pytest.mark.parametrize("key", [None, TLS / "certificate.pem"])
def test_tls_context_without_the_certificates_key_raises(key):
    with pytest.raises(ConfigError, match=r"tls_certificate: .*certificate\.pem and its key cannot be used: "):
        tls_context(TLS / "certificate.pem", key)


def test_bind_to_a_used_port_or_foreign_host_raises_in_one_line():
    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*choose another --port") as caught:
            bind("127.0.0.1", port)
        assert "\n" not in caught.value.message
    with pytest.raises(ConfigError, match="cannot listen on"):
        bind("203.0.113.1", 0)
