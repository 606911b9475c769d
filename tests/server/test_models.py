"""`GET /v1/models`: what a caller can use."""

from __future__ import annotations

import pytest

from tests.serving.provider import FREE, PRICED, TIERED, TIMED

pytestmark = pytest.mark.anyio


async def test_the_list_has_every_deployment_in_the_files_order(provider):
    response = await provider.client.get("/v1/models")
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == [PRICED, FREE, TIMED, TIERED]
    created = provider.router.find(PRICED).created_s
    assert body["data"][0] == {"id": PRICED, "object": "model", "created": created, "owned_by": "local"}


async def test_one_model_is_found_by_an_id_with_a_slash_escaped_or_not(provider):
    first, *_ = (await provider.client.get("/v1/models")).json()["data"]
    assert (await provider.client.get(f"/v1/models/{PRICED}")).json() == first
    assert (await provider.client.get(f"/v1/models/{PRICED.replace('/', '%2F')}")).json() == first


@pytest.mark.parametrize("name", ["local/nothing", "nothing", "local", "local/tiny/more"])
async def test_an_unknown_model_is_404(provider, name):
    response = await provider.client.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert response.json()["error"]["param"] == "model"


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{PRICED}", "/v1/models/local/nothing"])
async def test_models_need_a_key(provider, path):
    assert (await provider.client.get(path, headers={"authorization": ""})).status_code == 401
