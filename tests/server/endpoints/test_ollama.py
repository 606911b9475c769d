"""Ollama's API beside its calls for text and vectors: models, version, and operations that are not there."""

from __future__ import annotations

import asyncio
from contextlib import closing

import httpx
import ollama
import pytest

from inferd import __version__
from inferd.config import ServerConfig
from inferd.server.app import build_app
from inferd.server.transport.server import HttpServer, bind, tls_context
from inferd.wire.ollama.models import API_VERSION
from tests.server.transport.test_server import TLS, served_on_socket, trusted
from tests.serving.provider import (
    DEFAULT_MAX_TOKENS,
    FREE,
    MAX_CONTEXT,
    PATIENCE_S,
    PRICED,
    TEMPLATE,
    TIERED,
    TIMED,
    running_provider,
)

pytestmark = pytest.mark.anyio

NAMES = [f"{name}:latest" for name in (PRICED, FREE, TIMED, TIERED)]


async def test_models_are_listed_shown_and_loaded_as_ollamas_client_reads_them(provider):
    async with served_on_socket(provider) as served:
        headers = {"authorization": f"Bearer {provider.key}"}
        client = ollama.AsyncClient(host=f"http://127.0.0.1:{served.port}", headers=headers)
        listed = (await client.list()).models
        loaded = (await client.ps()).models
        shown = await client.show(NAMES[0])
        await client._client.aclose()
    facts = provider.router.find(PRICED).replica.facts
    assert [model.model for model in listed] == NAMES
    assert [model.model for model in loaded] == NAMES
    first = listed[0]
    assert first.details is not None
    assert (first.size, first.digest, first.details.family) == (facts.file_bytes, facts.digest, "fake")
    assert (first.details.parameter_size, first.details.quantization_level) == ("134.52M", "Q4_1")
    assert len(first.digest or "") == 64
    assert loaded[0].expires_at is not None
    assert loaded[0].expires_at.year > 2900
    assert (loaded[0].size_vram, loaded[0].context_length) == (0, MAX_CONTEXT)
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "fake"
    assert shown.modelinfo["fake.context_length"] == MAX_CONTEXT
    assert shown.template == TEMPLATE
    assert (shown.parameters or "").split() == ["num_ctx", str(MAX_CONTEXT), "num_predict", str(DEFAULT_MAX_TOKENS)]


async def test_lists_have_the_deployments_of_the_key_only(provider):
    headers = {"authorization": f"Bearer {provider.new_key('acme', models=[FREE])}"}
    for path in ("/api/tags", "/api/ps"):
        models = (await provider.client.get(path, headers=headers)).json()["models"]
        assert [model["name"] for model in models] == [f"{FREE}:latest"]
    refused = await provider.client.post("/api/show", json={"model": PRICED}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "model_not_allowed")


async def test_model_that_is_not_loaded_is_listed_and_not_running(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, started=False) as provider:
        assert len((await provider.client.get("/api/tags")).json()["models"]) == 4
        assert (await provider.client.get("/api/ps")).json() == {"models": []}
        shown = (await provider.client.post("/api/show", json={"model": PRICED})).json()
        assert (shown["model_info"], shown["details"]["quantization_level"]) == ({}, "unknown")
        load = await provider.client.post("/api/generate", json={"model": PRICED})
        assert (load.status_code, load.json()["code"]) == (503, "server_overloaded")


async def test_embedding_model_has_ollamas_word_for_it(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, is_causal=False) as provider:
        shown = (await provider.client.post("/api/show", json={"name": PRICED})).json()
        assert (shown["capabilities"], shown["template"]) == (["embedding"], "")


@pytest.mark.parametrize(
    ("body", "param"), [({}, "model"), ({"model": ""}, "model"), ({"modle": "x"}, "modle"), ({"model": 1}, "model")]
)
async def test_show_without_a_model_is_refused(provider, body, param):
    response = await provider.client.post("/api/show", json=body)
    assert (response.status_code, response.json()["param"]) == (400, param)


async def test_version_needs_no_key_and_is_one_that_clients_accept(provider):
    response = await provider.client.get("/api/version", headers={"authorization": ""})
    assert response.json() == {"version": API_VERSION, "inferd": __version__}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", f"/api/{name}") for name in ("pull", "push", "create", "copy", "blobs/sha256:00")),
        ("DELETE", "/api/delete"),
    ],
)
async def test_operation_on_models_is_a_501_that_says_so_and_needs_a_key(provider, method, path):
    response = await provider.client.request(method, path, json={"model": "x"})
    assert (response.status_code, response.json()["code"]) == (501, "not_implemented")
    assert "models.toml" in response.json()["error"]
    assert response.headers["x-should-retry"] == "false"
    assert (await provider.client.request(method, path, headers={"authorization": ""})).status_code == 401
    assert (await provider.client.head("/api/blobs/sha256:00")).status_code == 501


async def test_unknown_path_is_a_404_in_ollamas_shape(provider):
    response = await provider.client.get("/api/tag")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert "/api/tags" in response.json()["error"]


async def test_ollamas_port_says_so_speaks_plain_http_and_has_all_routes(provider):
    """Beside a first port with TLS, which says nothing of the kind."""

    async def drain() -> None:
        provider.completions.close()

    with closing(bind("127.0.0.1", 0)) as first, closing(bind("127.0.0.1", 0)) as second:
        ports = [listener.getsockname()[1] for listener in (first, second)]
        app = build_app(provider.services, ServerConfig(), "127.0.0.1", ports[1])
        tls = tls_context(TLS / "certificate.pem", TLS / "key.pem")
        server = HttpServer(app, drain, provider.completions.cut_off, tls)
        running = asyncio.create_task(server.run_on(first, plain=second))
        await provider.until(lambda: server.started)
        headers = {"authorization": f"Bearer {provider.key}"}
        async with httpx.AsyncClient(headers=headers, timeout=PATIENCE_S, verify=trusted()) as client:
            here = await client.get(f"http://127.0.0.1:{ports[1]}/")
            assert (here.status_code, here.text) == (200, "Ollama is running")
            assert (await client.head(f"http://127.0.0.1:{ports[1]}/")).status_code == 200
            assert (await client.get(f"https://localhost:{ports[0]}/")).status_code == 404
            for base in (f"http://127.0.0.1:{ports[1]}", f"https://localhost:{ports[0]}"):
                for path in ("/v1/models", "/api/tags", "/health"):
                    assert (await client.get(base + path)).status_code == 200
        server.stop()
        await running
        assert (await asyncio.to_thread(_refuses, ports[1])) is True


def _refuses(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/")
    except httpx.ConnectError:
        return True
    return False
