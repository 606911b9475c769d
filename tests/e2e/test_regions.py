"""A server behind a trusted proxy refuses callers by the region of the address that the proxy reports."""

from __future__ import annotations

import sys

import httpx
import pytest

from tests.e2e.models import FAKE_MODELS_TOML, ask
from tests.e2e.server_process import ServerProcess, Team
from tests.server.mmdb import write_mmdb

FAKE = (sys.executable, "-m", "tests.e2e.launch", "--fake")
AUSTRIA, FRANCE, NOWHERE = "192.0.2.7", "198.51.100.9", "203.0.113.1"
REFUSED = "Country, region, or territory not supported"

ENDPOINTS = {
    "/chat/completions": {"messages": ask("Hi"), "max_tokens": 1},
    "/completions": {"prompt": "Hi", "max_tokens": 1},
    "/responses": {"input": "Hi", "max_output_tokens": 1},
    "/messages": {"messages": ask("Hi"), "max_tokens": 1},
    "/embeddings": {"input": "Hi"},
}


@pytest.fixture
def team(fake_server: ServerProcess) -> Team:
    """Of a server that the proxy on 127.0.0.1 reports callers to, and that serves Austria alone."""
    database = write_mmdb(
        fake_server.folder / "countries.mmdb",
        {"192.0.2.0/24": {"country": {"iso_code": "AT"}}, "198.51.100.0/24": {"country": {"iso_code": "FR"}}},
    )
    fake_server.config.write_text(
        f'{FAKE_MODELS_TOML}\n[server]\ntrusted_proxies = ["127.0.0.1"]\ncountry_database = "{database}"\n'
        'allow_countries = ["AT"]\n'
    )
    fake_server.start(FAKE)
    return fake_server.team("travellers", 10**9)


def test_region_behind_a_trusted_proxy_decides_on_every_endpoint(fake_server, team):
    with httpx.Client(base_url=fake_server.base_url, headers={"authorization": f"Bearer {team.key}"}) as client:

        def post(path: str, forwarded_for: str | None) -> httpx.Response:
            headers = {} if forwarded_for is None else {"x-forwarded-for": forwarded_for}
            return client.post(path, json={"model": "local/tiny", **ENDPOINTS[path]}, headers=headers, timeout=60)

        for path in ENDPOINTS:
            assert post(path, AUSTRIA).status_code == 200
            for forwarded_for in (FRANCE, NOWHERE, f"{AUSTRIA}, {FRANCE}", None):
                refused = post(path, forwarded_for)
                assert (refused.status_code, refused.json()["error"]["message"]) == (403, REFUSED)
        # The caller's own header stands left of what the proxy appends.
        assert post("/chat/completions", f"{FRANCE}, {AUSTRIA}").status_code == 200
        code = post("/chat/completions", FRANCE).json()["error"]["code"]
        assert code == "unsupported_country_region_territory"
        assert post("/messages", FRANCE).json()["type"] == "error"
    assert len(team.usage_rows()) == len(ENDPOINTS) + 1, "a refused request is no request"
    fake_server.assert_audit_clean()
