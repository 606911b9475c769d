"""Limits on the size of bodies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from inferd.server.transport import body as body_module
from inferd.server.transport.body import MAX_BODY_BYTES
from tests.serving.provider import Provider, chat_body

pytestmark = pytest.mark.anyio


def padded(size: int) -> bytes:
    """Return a valid request of `size` bytes."""
    request = json.dumps(chat_body(max_tokens=1)).encode()
    return request + b" " * (size - len(request))


async def post(provider: Provider, content: bytes | AsyncIterator[bytes]):
    return await provider.client.post("/v1/chat/completions", content=content)


async def test_body_of_the_largest_size_is_read_and_one_byte_more_is_413(provider, monkeypatch):
    monkeypatch.setattr(body_module, "MAX_BODY_BYTES", 2**20)
    assert (await post(provider, padded(2**20))).status_code == 200
    response = await post(provider, padded(2**20 + 1))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert "1 MiB" in response.json()["error"]["message"]


async def test_body_with_a_too_large_declared_size_is_413_before_a_byte_is_read(provider):
    read = []

    async def content() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"{"

    headers = {"content-length": str(MAX_BODY_BYTES + 1)}
    response = await provider.client.post("/v1/chat/completions", content=content(), headers=headers)
    assert response.status_code == 413
    assert read == []


async def test_body_without_a_size_is_413_as_soon_as_it_is_too_large(provider):
    read = []

    async def content() -> AsyncIterator[bytes]:
        while True:
            read.append(1)
            yield b" " * 2**20

    response = await post(provider, content())
    assert response.status_code == 413
    assert len(read) == MAX_BODY_BYTES // 2**20 + 1


async def test_body_in_many_pieces_is_read_whole(provider):
    async def content() -> AsyncIterator[bytes]:
        for byte in padded(200):
            yield bytes([byte])

    assert (await post(provider, content())).status_code == 200


async def test_body_with_an_invalid_content_length_is_read(provider):
    response = await provider.client.post(
        "/v1/chat/completions", content=padded(200), headers={"content-length": "many"}
    )
    assert response.status_code == 200
