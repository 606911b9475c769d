"""Rights of a key over HTTP: its scopes, models and project, suspensions, and `GET /v1/key`."""

from __future__ import annotations

import httpx
import pytest
from openai import AsyncOpenAI, PermissionDeniedError

from inferd.ledger import operations
from tests.server.test_errors import error_of
from tests.serving.provider import FREE, PRICED, chat_body

pytestmark = pytest.mark.anyio


def as_key(key, **headers):
    return {"authorization": f"Bearer {key}"} | headers


def change(provider, operation, *names, **options):
    with provider.store.immediate() as conn:
        return operation(conn, *names, by=operations.Author("test", 1), **options)


async def chat(provider, key, model=PRICED, **headers):
    return await provider.client.post(
        "/v1/chat/completions", json=chat_body(model=model, max_tokens=2), headers=as_key(key, **headers)
    )


async def test_call_without_the_scope_inference_is_403(provider):
    """R21"""
    for scopes in (("usage",), ("admin",), ("manage", "usage")):
        response = await chat(provider, provider.new_key("acme", scopes=scopes))
        error_of(response, 403, "permission_error", "insufficient_scope")
        assert response.headers["x-should-retry"] == "false"
    assert provider.rows("holds") == []


async def test_key_with_models_may_use_only_those_models(provider):
    """R21"""
    key = provider.new_key("acme", models=(FREE,))
    error_of(await chat(provider, key), 403, "permission_error", "model_not_allowed", "model")
    assert (await chat(provider, key, FREE)).status_code == 200
    listed = await provider.client.get("/v1/models", headers=as_key(key))
    assert [model["id"] for model in listed.json()["data"]] == [FREE]
    refused = await provider.client.get(f"/v1/models/{PRICED}", headers=as_key(key))
    error_of(refused, 403, "permission_error", "model_not_allowed", "model")
    unknown = await provider.client.get("/v1/models/local/nothing", headers=as_key(key))
    error_of(unknown, 404, "invalid_request_error", "model_not_found", "model")


async def test_project_header_decides_the_project_of_the_usage(provider):
    """R9"""
    change(provider, operations.create_member, "project", "acme", "search")
    for header in ("search", "acme/search"):
        response = await chat(provider, provider.key, **{"openai-project": header})
        assert response.status_code == 200
    assert (await chat(provider, provider.key)).status_code == 200
    assert [row["project"] for row in provider.rows("usage")] == ["search", "search", "inference"]


async def test_project_of_the_official_client_is_used(provider):
    """R9"""
    change(provider, operations.create_member, "project", "acme", "search")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(provider.app)) as http_client:
        client = AsyncOpenAI(
            api_key=provider.key, project="search", base_url="http://localhost/v1", http_client=http_client
        )
        await client.chat.completions.create(**chat_body(max_tokens=1))
        with pytest.raises(PermissionDeniedError) as refusal:
            await client.with_options(project="nothing").chat.completions.create(**chat_body(max_tokens=1))
    assert refusal.value.code == "invalid_project"
    assert provider.usage_row()["project"] == "search"


async def test_project_of_another_team_is_refused_before_any_hold(provider):
    """R9"""
    provider.new_key("other")
    change(provider, operations.create_member, "project", "other", "secret")
    messages = set()
    for header in ("other/secret", "other/nothing", "nobody/secret"):
        response = await chat(provider, provider.key, **{"openai-project": header})
        message = error_of(response, 403, "permission_error", "invalid_project")
        messages.add(message.replace(header, "X"))
    assert len(messages) == 1, "nothing is learned of other teams"
    assert provider.rows("holds") == []


async def test_user_of_the_body_is_no_user_of_the_team(provider):
    """R9: it is a tag."""
    await provider.chat(user="ada", max_tokens=1)
    assert provider.usage_row()["user"] is None


async def test_suspended_team_is_refused_and_its_running_request_settles(provider, call):
    """R9"""
    provider.runner.hold_back()
    under_way = call(provider, max_tokens=2)
    await provider.until(lambda: provider.hold_states() == ["held"])
    change(provider, operations.suspend, "team", ("acme",))
    for path in ("/v1/models", "/v1/key", "/v1/organization/costs?start_time=1"):
        response = await provider.client.get(path)
        error_of(response, 403, "permission_error", "team_suspended")
    error_of(await chat(provider, provider.key, FREE), 403, "permission_error", "team_suspended")
    provider.runner.let_go()
    await under_way.ended()
    assert under_way.status == 200
    assert provider.hold_states() == ["settled"]
    change(provider, operations.resume, "team", ("acme",))
    assert (await chat(provider, provider.key)).status_code == 200


async def test_key_status_has_the_key_and_its_spendable_amounts(provider):
    change(provider, operations.create_member, "project", "acme", "search")
    change(provider, operations.create_member, "user", "acme", "ada")
    key = provider.new_key("acme", project="search", user="ada", label="laptop", models=(PRICED,))
    answer = (await provider.client.get("/v1/key", headers=as_key(key))).json()
    limits, rates = answer.pop("limits"), answer.pop("rates")
    credit = answer.pop("credit")
    assert answer == {
        "object": "key",
        "id": key.split("-")[2],
        "name": "laptop",
        "team": "acme",
        "project": "search",
        "user": "ada",
        "scopes": ["inference", "usage"],
        "models": [PRICED],
        "trusted": False,
        "expires_at": None,
        "plan": "academic",
        "tier": 1,
        "tier_source": "minimum of plan academic",
    }
    assert {"limit": "requests a minute", "value": 100, "least": None, "source": "tier 1"} in rates
    assert (credit["balance_usd"], credit["held_usd"]) == ("0.001000000", "0.000000000")
    assert {limit["scope"] for limit in limits} == {"team:acme"}
    assert {limit["source"] for limit in limits} == {"plan", "tier"}
    assert key not in str(answer)


async def test_key_status_needs_no_scope(provider):
    """R21"""
    key = provider.new_key("acme", scopes=("inference",))
    assert (await provider.client.get("/v1/key", headers=as_key(key))).status_code == 200
    response = await provider.client.get("/v1/key", headers={"authorization": ""})
    assert response.status_code == 401
