"""`GET /health`: 503 until every model is warm, 503 once one has failed."""

from __future__ import annotations

import pytest

from tests.serving.provider import running_provider

pytestmark = pytest.mark.anyio


async def test_health_without_a_key_is_503_until_the_model_is_warm_then_200(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, started=False) as provider:
        response = await provider.client.get("/health", headers={"authorization": ""})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        (replica,) = provider.router.replicas
        await replica.start()
        response = await provider.client.get("/health", headers={"authorization": ""})
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_health_after_the_engine_has_failed_is_503(provider):
    provider.runner.crash = RuntimeError("the device is gone")
    for _ in range(3):
        assert (await provider.chat()).status_code == 500
    await provider.until(lambda: not provider.router.is_ready)
    assert (await provider.client.get("/health")).status_code == 503
    assert (await provider.chat()).status_code == 503


async def test_health_of_a_server_that_stops_is_503_while_requests_end(provider):
    provider.completions.close()
    answer = await provider.client.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
    assert answer.headers["retry-after"] == "1"
