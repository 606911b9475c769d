"""Hostile and faulty clients on a socket: each gets a clear 4xx or a closed connection."""

from __future__ import annotations

import asyncio
import json

import pytest

from inferd.server.transport import body as body_module
from inferd.server.transport.protocol import MAX_HEAD_BYTES, MAX_PIPELINED, Timeouts
from tests.server.raw_client import head, raw_client
from tests.server.transport.test_server import served_on_socket
from tests.serving.provider import chat_body

pytestmark = pytest.mark.anyio

SHORT_S = 0.1


@pytest.fixture
async def served(provider, request):
    async with served_on_socket(provider, timeouts=getattr(request, "param", Timeouts())) as served:
        yield served
        # The server still answers after each test.
        assert (await served.client.post("/v1/chat/completions", json=chat_body(max_tokens=1))).status_code == 200


async def test_headers_up_to_the_limit_are_read_and_larger_ones_are_431(provider, served):
    async with raw_client(served.port) as client:
        await client.send(head(provider, "/v1/models", "GET", x_long="a" * (MAX_HEAD_BYTES - 1000)))
        assert (await client.answer())[0] == 200
        await client.send(head(provider, "/v1/models", "GET", x_long="a" * MAX_HEAD_BYTES))
        assert await client.error() == (431, "head_too_large")
        assert await client.rest() == b""


async def test_many_small_headers_count_like_a_long_one(provider, served):
    async with raw_client(served.port) as client:
        await client.send(head(provider, "/v1/models", "GET", **{f"x{n}": "a" * 20 for n in range(2000)}))
        assert await client.error() == (431, "head_too_large")


@pytest.mark.parametrize("start", [b"GET /v1/models HTTP/1.1\r\nx-endless: ", b"GET /"])
async def test_header_that_never_ends_is_cut_off(served, start):
    async with raw_client(served.port) as client:
        await client.send(start)
        assert await client.flood(b"a" * 65536, 1024)


@pytest.mark.parametrize("served", [Timeouts(head_s=SHORT_S)], indirect=True)
async def test_headers_that_do_not_arrive_are_408(served):
    async with raw_client(served.port) as client:
        await client.send(b"GET /v1/models HTTP/1.1\r\nhost: local")
        assert await client.error() == (408, "request_timeout")
        assert await client.rest() == b""


@pytest.mark.parametrize("served", [Timeouts(head_s=SHORT_S)], indirect=True)
async def test_idle_connection_is_closed_before_and_after_an_answer(provider, served):
    async with raw_client(served.port) as client:
        assert await client.rest() == b""
    async with raw_client(served.port) as client:
        await client.send(head(provider, "/v1/models", "GET"))
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""


@pytest.mark.parametrize("served", [Timeouts(head_s=SHORT_S)], indirect=True)
async def test_blank_lines_do_not_keep_a_connection_alive(served):
    async with raw_client(served.port) as client:
        await client.send(b"\r\n" * 10)
        assert await client.rest() == b""


async def test_body_that_does_not_arrive_is_408(provider, served, monkeypatch):
    monkeypatch.setattr(body_module, "BODY_TIMEOUT_S", SHORT_S)
    async with raw_client(served.port) as client:
        await client.send(head(provider, content_length=100) + b'{"model":')
        assert await client.error() == (408, "request_timeout")
        assert await client.rest() == b""


async def test_rest_of_a_refused_body_is_read_so_that_the_answer_arrives(served):
    # A reset connection would lose the answer for a client that is still sending.
    async with raw_client(served.port) as client:
        await client.send(head(None, content_length=2**20) + b" " * 2**20)
        assert await client.error() == (401, "invalid_api_key")
        await client.send(head(None, "/health", "GET"))
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize("served", [Timeouts(linger_s=SHORT_S)], indirect=True)
async def test_rest_of_a_refused_body_that_does_not_arrive_closes_the_connection(served):
    async with raw_client(served.port) as client:
        await client.send(head(None, content_length=2**20) + b" ")
        assert await client.error() == (401, "invalid_api_key")
        assert await client.rest() == b""


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_connection_that_ends_with_a_refusal_ends_after_the_rest_of_the_body(served, version):
    first = head(None, content_length=2**20, connection="close").replace(b" HTTP/1.1", f" HTTP/{version}".encode(), 1)
    async with raw_client(served.port) as client:
        await client.send(first)
        assert await client.error() == (401, "invalid_api_key")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.rest(), SHORT_S)
        await client.send(b" " * 2**20)
        assert await client.rest() == b""


async def test_other_version_of_http_is_505(provider, served):
    async with raw_client(served.port) as client:
        await client.send(head(provider, content_length=2).replace(b" HTTP/1.1", b" HTTP/2.0", 1) + b"{}")
        assert await client.error() == (505, "unknown_http_version")
        assert await client.rest() == b""


async def test_trailers_without_end_are_cut_off(served):
    async with raw_client(served.port) as client:
        await client.send(head(None, transfer_encoding="chunked") + b"0\r\nx-trailer: ")
        assert await client.flood(b"a" * 65536, 1024)


async def test_trailers_and_chunks_of_one_byte_are_read(provider, served):
    body = json.dumps(chat_body(max_tokens=1)).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    async with raw_client(served.port) as client:
        await client.send(head(provider, transfer_encoding="chunked") + chunks + b"0\r\nx-trailer: 1\r\n\r\n")
        assert (await client.answer())[0] == 200


async def test_pipelined_requests_are_answered_in_order_up_to_a_limit(provider, served):
    async with raw_client(served.port) as client:
        await client.send(head(provider, "/v1/models", "GET") * 4)
        assert [(await client.answer())[0] for _ in range(4)] == [200] * 4
    async with raw_client(served.port) as client:
        await client.send(head(provider, "/v1/models", "GET") * 400)
        assert (await client.rest()).count(b"HTTP/1.1 200") <= MAX_PIPELINED + 1


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nx\r\n\r\n"])
async def test_bytes_that_are_no_http_are_400(served, data):
    async with raw_client(served.port) as client:
        await client.send(data)
        assert await client.error() == (400, "invalid_http")
        assert await client.rest() == b""


async def test_both_lengths_of_a_body_at_once_are_400(provider, served):
    """Request smuggling: a proxy may have used the other length."""
    async with raw_client(served.port) as client:
        await client.send(head(provider, content_length=5, transfer_encoding="chunked") + b"0\r\n\r\n")
        assert await client.error() == (400, "invalid_http")


UPGRADES = {
    "h2c": {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAoAAAAAIAAAAA"},
    "websocket": {"connection": "upgrade", "upgrade": "websocket"},
    "tls": {"upgrade": "TLS/1.2", "connection": "keep-alive, Upgrade"},
}


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
async def test_upgrade_of_a_get_is_ignored_and_the_next_request_answered(provider, served, upgrade):
    async with raw_client(served.port) as client:
        await client.send(head(None, "/health", "GET", **upgrade) + head(provider, "/v1/key", "GET"))
        assert (await client.answer())[0] == 200
        assert b'"team"' in (await client.answer())[2]


@pytest.mark.parametrize("pieces", ["one", "late body", "bytes", "chunks"])
@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
async def test_upgrade_of_a_post_is_ignored_and_its_body_read_once(provider, served, upgrade, pieces):
    body = json.dumps(chat_body(max_tokens=1)).encode()
    if pieces == "chunks":
        start = head(provider, transfer_encoding="chunked", **upgrade)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        start = head(provider, content_length=len(body), **upgrade)
    async with raw_client(served.port) as client:
        if pieces == "bytes":
            for byte in start + body:
                await client.send(bytes([byte]))
        elif pieces == "late body":
            await client.send(start)
            await asyncio.sleep(0.05)
            await client.send(body)
        else:
            await client.send(start + body)
        assert (await client.answer())[0] == 200
        await client.send(head(provider, "/v1/models", "GET"))
        assert (await client.answer())[0] == 200


async def test_body_behind_an_upgrade_is_never_a_request(provider, served):
    inner = head(provider, "/v1/key", "GET")
    async with raw_client(served.port) as client:
        await client.send(head(provider, content_length=len(inner), **UPGRADES["h2c"]))
        await asyncio.sleep(0.05)
        await client.send(inner)
        assert await client.error() == (400, "invalid_json")
        await client.send(head(None, "/health", "GET", connection="close"))
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""


async def test_connect_is_501(served):
    async with raw_client(served.port) as client:
        await client.send(b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n")
        assert await client.error() == (501, "unknown_method")
        assert await client.rest() == b""


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity", "xchunked", "gzip"])
async def test_transfer_coding_other_than_chunked_is_501(provider, served, coding):
    async with raw_client(served.port) as client:
        await client.send(head(provider, transfer_encoding=coding) + b"0\r\n\r\n")
        assert await client.error() == (501, "unknown_transfer_coding")
        assert await client.rest() == b""


def old_head(provider, path: str = "/v1/chat/completions", **headers: object) -> bytes:
    return head(provider, path, **headers).replace(b" HTTP/1.1", b" HTTP/1.0", 1)


async def test_chunks_in_http_1_0_are_400(provider, served):
    async with raw_client(served.port) as client:
        await client.send(old_head(provider, transfer_encoding="chunked") + b"0\r\n\r\n")
        assert await client.error() == (400, "invalid_http")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"])
async def test_stream_over_http_1_0_has_no_chunks_and_ends_with_the_connection(provider, served, path):
    body = json.dumps(stream_body(path)).encode()
    async with raw_client(served.port) as client:
        await client.send(old_head(provider, path, content_length=len(body)) + body)
        answer_head, _, events = (await client.rest()).partition(b"\r\n\r\n")
    headers = answer_head.lower().split(b"\r\n")
    assert headers[0].startswith(b"http/1.1 200")
    assert [line for line in headers if line.startswith((b"transfer-encoding", b"connection"))] == [
        b"connection: close"
    ]
    assert all(line == b"" or line.startswith((b"data: ", b"event: ", b": ")) for line in events.split(b"\n"))
    assert events.endswith(b"\n\n")


def stream_body(path: str) -> dict[str, object]:
    body = {**chat_body(max_tokens=2), "stream": True}
    if path == "/v1/completions":
        body["prompt"] = body.pop("messages")[0]["content"]
    elif path == "/v1/responses":
        body |= {"input": body.pop("messages")[0]["content"], "max_output_tokens": body.pop("max_tokens")}
    return body


async def test_whole_answer_over_http_1_0_has_its_length(provider, served):
    body = json.dumps(chat_body(max_tokens=1)).encode()
    async with raw_client(served.port) as client:
        await client.send(old_head(provider, content_length=len(body)) + body)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_connection_close_is_not_contradicted_by_a_stream(provider, served):
    body = json.dumps(stream_body("/v1/chat/completions")).encode()
    async with raw_client(served.port) as client:
        await client.send(head(provider, content_length=len(body), connection="close") + body)
        lines = (await client.rest()).lower().split(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line for line in lines if line.startswith(b"connection")] == [b"connection: close"]


@pytest.mark.parametrize("served", [Timeouts(stall_s=SHORT_S)], indirect=True)
async def test_client_that_does_not_read_a_long_answer_is_cut_off(provider, served, monkeypatch):
    monkeypatch.setattr("inferd.server.endpoints.models.encode_model_list", lambda models, has_more: b" " * 2**26)
    async with raw_client(served.port) as client:
        await client.send(head(provider, "/v1/models", "GET"))
        await provider.until(lambda: len(served.server.server_state.connections) == 1)
        await provider.until(lambda: not served.server.server_state.connections)
        assert 0 < len(await client.rest()) < 2**26


async def test_client_that_reads_a_long_answer_slowly_gets_all_of_it(provider, served, monkeypatch):
    monkeypatch.setattr("inferd.server.endpoints.models.encode_model_list", lambda models, has_more: b" " * 2**24)
    async with raw_client(served.port) as client:
        await client.send(head(provider, "/v1/models", "GET"))
        status, _, body = await client.answer()
        assert (status, len(body)) == (200, 2**24)
