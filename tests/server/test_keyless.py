"""Requests without a key: which may act as the key of `[server] keyless`, and what attackers get."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from inferd.config import ServerConfig
from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.operations import Author
from inferd.server.app import build_app
from tests.serving.provider import PRICED, Provider

pytestmark = pytest.mark.anyio

CHAT = {"model": PRICED, "messages": [{"role": "user", "content": "hello"}], "stream": False}
CALLS = [
    ("POST", "/api/chat", CHAT),
    ("POST", "/api/generate", {"model": PRICED, "prompt": "a", "stream": False}),
    ("POST", "/api/embed", {"model": PRICED, "input": "a"}),
    ("POST", "/api/show", {"model": PRICED}),
    ("GET", "/api/tags", None),
    ("GET", "/api/ps", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/tokenize", {"model": PRICED, "content": "a"}),
    ("GET", "/v1/models", None),
    ("GET", f"/v1/models/{PRICED}", None),
    ("POST", "/v1/responses", {"model": PRICED, "input": "a", "max_output_tokens": 2}),
    ("POST", "/v1/messages", {**CHAT, "max_tokens": 2}),
    ("POST", "/v1/messages/count_tokens", {"model": PRICED, "messages": CHAT["messages"]}),
]
CLOSED = [
    ("GET", "/v1/key"),
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/file-1/content"),
    ("DELETE", "/v1/files/file-1"),
    ("GET", "/v1/batches"),
    ("POST", "/v1/batches"),
    ("POST", "/v1/batches/batch_1/cancel"),
    ("GET", "/v1/organization/costs?start_time=0"),
    ("GET", "/admin/teams"),
]
PAGE = "https://chat.example.org"


def key_id_of(provider: Provider) -> str:
    """The id of the key of team acme."""
    return provider.key.split("-")[2]


def asking(provider: Provider, peer: str = "127.0.0.1", **config: Any) -> httpx.AsyncClient:
    """A client without a key, of a server whose requests without one act as the key of team acme."""
    settings = ServerConfig(**{"keyless": key_id_of(provider), **config})
    transport = httpx.ASGITransport(build_app(provider.services, settings, "127.0.0.1"), client=(peer, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:11434")


async def status(provider: Provider, headers: dict[str, str] | None = None, **options: Any) -> int:
    async with asking(provider, **options) as client:
        return (await client.post("/api/chat", json=CHAT, headers=headers)).status_code


async def test_call_without_a_key_is_served_as_the_key_and_a_401_by_default(provider):
    async with asking(provider) as open_client, asking(provider, keyless=None) as closed_client:
        for method, path, body in CALLS:
            assert (await open_client.request(method, path, json=body)).status_code == 200, path
            assert (await closed_client.request(method, path, json=body)).status_code == 401, path
    assert {row["key_id"] for row in provider.rows("usage")} == {key_id_of(provider)}


async def test_call_without_a_key_is_billed_to_the_key(provider):
    assert await status(provider) == 200
    row = provider.usage_row()
    assert (row["team"], row["key_id"], row["status"]) == ("acme", key_id_of(provider), "completed")
    assert row["cost_nanousd"] > 0


async def test_stored_data_and_reports_need_a_key(provider):
    async with asking(provider) as client:
        for method, path in CLOSED:
            assert (await client.request(method, path)).status_code == 401, path


async def test_wrong_key_is_a_401_all_the_same(provider):
    wrong = {"authorization": "Bearer ollama"}, {"x-api-key": "sk-wrong"}, {"authorization": "Basic b3BlbjpzZXNhbWU="}
    assert [await status(provider, headers) for headers in wrong] == [401, 401, 401]


async def test_valid_key_acts_as_itself(provider):
    other = provider.new_key("other")
    async with asking(provider, peer="192.0.2.7") as client:
        response = await client.post("/api/show", json={"model": PRICED}, headers={"authorization": f"Bearer {other}"})
    assert response.status_code == 200


async def test_client_of_another_machine_or_container_needs_a_key(provider):
    own = ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")
    others = ("192.168.1.5", "172.17.0.2", "0.0.0.0", "fe80::1", "not an address")
    found = {peer: await status(provider, peer=peer) for peer in (*own, *others)}
    assert found == dict.fromkeys(own, 200) | dict.fromkeys(others, 401)


async def test_host_that_is_not_this_machine_needs_a_key(provider):
    """DNS rebinding, and pages that call 0.0.0.0."""
    expected = {
        "localhost:11434": 200,
        "127.0.0.1": 200,
        "[::1]:11434": 200,
        "box.lan": 200,
        "192.168.1.5": 401,
        "0.0.0.0:11434": 401,
        "evil.example": 421,
        "127.0.0.1.nip.io": 421,
    }
    assert {host: await status(provider, {"host": host}, hosts=("box.lan",)) for host in expected} == expected


async def test_web_page_that_is_no_cors_origin_needs_a_key(provider):
    expected = {
        (PAGE, None): 200,
        (PAGE, "cross-site"): 200,
        ("https://evil.example", None): 401,
        ("null", None): 401,
        ("http://localhost:3000", "same-site"): 401,
        (None, "cross-site"): 401,
        (None, "same-site"): 401,
        (None, "none"): 200,
    }
    for (origin, site), wanted in expected.items():
        headers = {"origin": origin, "sec-fetch-site": site}
        sent = {name: value for name, value in headers.items() if value is not None}
        assert await status(provider, sent, cors_origins=(PAGE,)) == wanted, sent


async def test_request_through_a_proxy_needs_a_key(provider):
    names = ("x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host", "x-forwarded-proto")
    assert {await status(provider, {name: "127.0.0.1"}) for name in names} == {401}


async def test_refusal_says_what_is_missing_and_counts_as_a_failure(provider):
    async with asking(provider, peer="192.0.2.7") as client:
        answers = [await client.post("/api/chat", json=CHAT) for _ in range(61)]
    assert "192.0.2.7" in answers[0].json()["error"]
    assert "Send an API key" in answers[0].json()["error"]
    assert [answer.status_code for answer in answers] == [401] * 60 + [429]


async def test_key_that_does_not_exist_is_a_401_with_the_remedy(provider):
    async with asking(provider, keyless="A" * 12) as client:
        response = await client.post("/api/chat", json=CHAT)
    assert response.status_code == 401
    assert "`keyless` in [server] of models.toml" in response.json()["error"]


async def test_revoked_key_refuses_the_next_request(provider):
    async with asking(provider) as client:
        assert (await client.post("/api/chat", json=CHAT)).status_code == 200
        with provider.store.immediate() as conn:
            operations.revoke_key(conn, key_id_of(provider), by=Author("test", wall_clock_ms()))
        response = await client.post("/api/chat", json=CHAT)
    assert (response.status_code, "revoked" in response.json()["error"]) == (401, True)


async def test_key_with_other_rights_never_stands_in(provider):
    for scopes in (("inference", "manage"), ("inference", "admin"), ("usage",)):
        key_id = provider.new_key("acme", scopes=scopes).split("-")[2]
        assert await status(provider, keyless=key_id) == 403, scopes
        async with asking(provider, keyless=key_id) as client:
            assert (await client.get("/admin/teams")).status_code == 401, scopes


async def test_project_header_chooses_within_the_keys_team_only(provider):
    assert await status(provider, {"openai-project": "inference"}) == 200
    assert await status(provider, {"openai-project": "other/inference"}) == 403
