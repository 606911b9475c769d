"""Headers of every response: its id and its processing time."""

from __future__ import annotations

import re

import pytest

from tests.serving.provider import PRICED, chat_body

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/nothing", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/chat/completions", 400),
    ],
)
async def test_request_id_is_in_every_response(provider, method, path, status):
    response = await provider.client.request(method, path)
    assert response.status_code == status
    assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])


async def test_request_id_is_in_the_response_of_a_bug(provider, monkeypatch):
    monkeypatch.setattr(provider.router, "find", lambda name: 1 / 0)
    response = await provider.chat()
    assert response.status_code == 500
    assert response.headers["x-request-id"].startswith("req_")


async def test_request_id_is_the_ledgers_and_never_the_clients(provider):
    headers = {"x-request-id": "mine", "x-client-request-id": "mine"}
    responses = [
        await provider.client.post("/v1/chat/completions", json=chat_body(max_tokens=1), headers=headers)
        for _ in range(2)
    ]
    ids = [response.headers["x-request-id"] for response in responses]
    assert len(set(ids)) == 2
    assert "mine" not in ids
    assert sorted(ids) == sorted(row["request_id"] for row in provider.rows("usage"))
    assert {row["deployment"] for row in provider.rows("usage")} == {PRICED}


async def test_processing_time_is_in_whole_milliseconds_on_openais_paths(provider):
    chat = await provider.chat(max_tokens=1)
    refused = await provider.client.get("/nothing")
    for response in (chat, refused):
        assert re.fullmatch(r"\d{1,5}", response.headers["openai-processing-ms"])
    assert "openai-processing-ms" not in (await provider.client.post("/v1/messages", json={})).headers
