"""Checks of every request: host names, regions, origins of web pages."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import httpx
import pytest

from inferd.config import RegionsConfig, ServerConfig
from inferd.errors import ConfigError
from inferd.server.app import build_app
from tests.server.mmdb import write_mmdb
from tests.serving.provider import Provider, chat_body

pytestmark = pytest.mark.anyio

PROXY, CLIENT = "10.0.0.1", "192.0.2.7"


def client(
    provider: Provider, config: ServerConfig, bound_host: str = "127.0.0.1", peer: str = "127.0.0.1"
) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(build_app(provider.services, config, bound_host), client=(peer, 1))
    headers = {"authorization": f"Bearer {provider.key}"}
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


async def status_for_host(provider: Provider, host: str, bound_host: str = "127.0.0.1", **config: Any) -> int:
    async with client(provider, ServerConfig(**config), bound_host) as asking:
        return (await asking.get("/v1/models", headers={"host": host})).status_code


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "192.168.1.5:80", "localhost."]
)
async def test_host_of_loopback_or_an_address_is_200(provider, host):
    assert await status_for_host(provider, host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
async def test_host_of_a_rebound_name_is_421(provider, host):
    assert await status_for_host(provider, host) == 421


async def test_refusal_of_a_host_names_the_setting_that_allows_it(provider):
    async with client(provider, ServerConfig()) as asking:
        response = await asking.post("/v1/chat/completions", json=chat_body(), headers={"host": "ai.example.org"})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (421, "unknown_host")
    assert "'ai.example.org'" in error["message"]
    assert "`hosts` in [server] of models.toml" in error["message"]
    assert response.headers["x-request-id"].startswith("req_")


async def test_host_that_is_configured_or_bound_is_200(provider):
    assert await status_for_host(provider, "AI.example.org:443", hosts=("ai.example.org",)) == 200
    assert await status_for_host(provider, "box.lan:8000", bound_host="Box.lan") == 200


async def test_health_by_any_host_and_from_any_region_is_200(provider):
    config = ServerConfig(regions=RegionsConfig(allow_networks=(ip_network("192.0.2.0/24"),)))
    async with client(provider, config) as asking:
        assert (await asking.get("/health", headers={"host": "probe"})).status_code == 200
        assert (await asking.get("/v1/models")).status_code == 403


async def test_region_that_is_denied_is_403_before_the_key_is_checked(provider, tmp_path):
    database = write_mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": {"country": {"iso_code": "DE"}}})
    regions = RegionsConfig(database, deny_countries=frozenset({"DE"}))
    async with client(provider, ServerConfig(regions=regions), peer=CLIENT) as asking:
        response = await asking.post("/v1/chat/completions", content=b"{", headers={"authorization": "Bearer x"})
    assert response.status_code == 403
    assert response.json()["error"] == {
        "message": "Country, region, or territory not supported",
        "type": "permission_error",
        "param": None,
        "code": "unsupported_country_region_territory",
    }
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("peer", "status"), [(PROXY, 403), ("198.51.100.1", 200)])
async def test_forwarded_address_counts_only_from_a_trusted_proxy(provider, peer, status):
    config = ServerConfig(
        trusted_proxies=(ip_network(PROXY),), regions=RegionsConfig(deny_networks=(ip_network(CLIENT),))
    )
    async with client(provider, config, peer=peer) as asking:
        response = await asking.get("/v1/models", headers={"x-forwarded-for": f"203.0.113.1, {CLIENT}"})
    assert response.status_code == status


async def test_app_with_an_unusable_country_database_raises(provider, tmp_path):
    path = tmp_path / "c.mmdb"
    path.write_bytes(b"")
    with pytest.raises(ConfigError):
        client(provider, ServerConfig(regions=RegionsConfig(path, deny_countries=frozenset({"DE"}))))


PREFLIGHT = {
    "origin": "https://chat.example.org",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def test_cors_without_origins_adds_no_headers(provider):
    async with client(provider, ServerConfig()) as asking:
        preflight = await asking.options("/v1/chat/completions", headers=PREFLIGHT)
        answer = await asking.get("/v1/models", headers={"origin": "https://chat.example.org"})
    assert preflight.status_code == 405
    assert not [name for name in {**preflight.headers, **answer.headers} if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("origins", "allowed"), [(("https://chat.example.org",), "https://chat.example.org"), (("*",), "*")]
)
async def test_cors_origin_that_is_configured_reads_answers_and_refusals(provider, origins, allowed):
    async with client(provider, ServerConfig(cors_origins=origins)) as asking:
        preflight = await asking.options("/v1/chat/completions", headers=PREFLIGHT)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == allowed
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        origin = {"origin": PREFLIGHT["origin"]}
        for headers in (origin, origin | {"authorization": ""}, origin | {"host": "evil.example"}):
            answer = await asking.get("/v1/models", headers=headers)
            assert answer.headers["access-control-allow-origin"] == allowed
            assert answer.headers["access-control-expose-headers"] == "*"


async def test_cors_origin_that_is_not_configured_is_refused(provider):
    async with client(provider, ServerConfig(cors_origins=("https://chat.example.org",))) as asking:
        preflight = await asking.options("/v1/models", headers=PREFLIGHT | {"origin": "https://evil.example"})
        answer = await asking.get("/v1/models", headers={"origin": "https://evil.example"})
    assert preflight.status_code == 400
    assert "access-control-allow-origin" not in preflight.headers
    assert "access-control-allow-origin" not in answer.headers
