"""`GET /v1/models`: the deployments that a caller may use."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime

import pytest
from anthropic import AsyncAnthropic
from anthropic.types import ModelInfo
from openai.types import Model

from inferd.chat.reasoning_mode import ReasoningMode
from inferd.config import NOTICE_MS, Retirement
from inferd.instants import wall_clock_ms
from inferd.limits.ticket import unlimited_ticket
from inferd.wire.models import CHAT_PARAMETERS, REASONING_PARAMETERS, TEXT_PARAMETERS
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.text_completions import TextRequest
from tests.server.transport.test_server import served_on_socket
from tests.serving.provider import (
    DEFAULT_MAX_TOKENS,
    FREE,
    MAX_CONTEXT,
    PRICED,
    TIERED,
    TIMED,
    Provider,
    running_provider,
)

pytestmark = pytest.mark.anyio

PRICES = (
    "input_usd_per_1m_tokens",
    "cached_input_usd_per_1m_tokens",
    "output_usd_per_1m_tokens",
    "usd_per_second",
)


def retire(provider: Provider, gone_at_ms: int) -> None:
    deployment = provider.router.find(PRICED)
    retirement = Retirement(gone_at_ms - NOTICE_MS, gone_at_ms)
    provider.router._deployments[PRICED] = replace(deployment, retirement=retirement)


async def test_models_list_has_every_deployment_in_the_files_order(provider):
    response = await provider.client.get("/v1/models")
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == [PRICED, FREE, TIMED, TIERED]
    created = provider.router.find(PRICED).created_s
    priced, free, timed, tiered = body["data"]
    assert {"id": PRICED, "object": "model", "created": created, "owned_by": "local"}.items() <= priced.items()
    for model in body["data"]:
        Model.model_validate(model, strict=True)
    assert (priced["max_model_len"], priced["default_max_tokens"]) == (MAX_CONTEXT, DEFAULT_MAX_TOKENS)
    assert priced["serverless"] is True
    assert priced["free"] is False
    assert free["free"] is True
    assert [priced[price] for price in PRICES] == ["0.002000000", "0.001000000", "0.005000000", None]
    assert [free[price] for price in PRICES] == [None] * 4
    assert [timed[price] is not None for price in PRICES] == [False, False, False, True]
    assert timed["max_compute_ms"] == provider.router.find(TIMED).max_compute_ms
    assert priced["service_tiers"] == {"default": 1.0, "batch": 0.5}
    assert set(tiered["service_tiers"]) == {"default", "batch", "priority", "flex"}


async def test_models_are_read_by_anthropics_sdk_page_by_page_and_each(provider):
    async with (
        served_on_socket(provider) as served,
        AsyncAnthropic(base_url=f"http://127.0.0.1:{served.port}", api_key=provider.key) as client,
    ):
        for limit in (1, 3, 1000):
            models = [model async for model in client.models.list(limit=limit)]
            assert [model.id for model in models] == [PRICED, FREE, TIMED, TIERED]
        for model in models:
            ModelInfo.model_validate(model.model_dump(), strict=True)
        before = await client.models.list(limit=2, before_id=TIERED)
        assert ([model.id for model in before.data], before.has_more) == ([FREE, TIMED], True)
        one = await client.models.retrieve(PRICED)
        assert (one.display_name, one.lifecycle, one.retires_at) == (PRICED, "active", None)
        retire(provider, wall_clock_ms() + 60_000)
        assert (await client.models.retrieve(PRICED)).lifecycle == "deprecated"


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
async def test_models_page_with_a_wrong_limit_is_400(provider, limit):
    response = await provider.client.get("/v1/models", params={"limit": limit})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize("cursor", ["after_id", "before_id"])
async def test_models_page_after_an_unknown_id_is_400(provider, cursor):
    response = await provider.client.get("/v1/models", params={cursor: "local/gone"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, cursor)


async def test_model_is_found_by_an_id_with_a_plain_or_escaped_slash(provider):
    first, *_ = (await provider.client.get("/v1/models")).json()["data"]
    assert (await provider.client.get(f"/v1/models/{PRICED}")).json() == first
    assert (await provider.client.get(f"/v1/models/{PRICED.replace('/', '%2F')}")).json() == first


@pytest.mark.parametrize("name", ["local/nothing", "nothing", "local", "local/tiny/more"])
async def test_model_that_is_unknown_is_404(provider, name):
    response = await provider.client.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert response.json()["error"]["param"] == "model"


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{PRICED}", "/v1/models/local/nothing"])
async def test_models_without_a_key_are_401(provider, path):
    assert (await provider.client.get(path, headers={"authorization": ""})).status_code == 401


async def test_deployment_being_retired_adds_headers_to_every_answer(provider):
    gone_at_ms = wall_clock_ms() // 1000 * 1000 + 60_000
    retire(provider, gone_at_ms)
    answers = [
        await provider.client.get(f"/v1/models/{PRICED}"),
        await provider.chat(max_tokens=1),
        await provider.chat(max_tokens=1, stream=True),
        await provider.chat(logit_bias={"99999999": 1}),
        await provider.client.post("/v1/completions", json={"model": PRICED, "prompt": "a", "max_tokens": 1}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 400, 200]
    for answer in answers:
        assert answer.headers["deprecation"] == f"@{(gone_at_ms - NOTICE_MS) // 1000}"
        assert parsedate_to_datetime(answer.headers["sunset"]).timestamp() * 1000 == gone_at_ms
    shown = answers[0].json()
    assert datetime.fromisoformat(shown["retires_at"]).timestamp() * 1000 == gone_at_ms
    assert datetime.fromisoformat(shown["deprecated_at"]).timestamp() * 1000 == gone_at_ms - NOTICE_MS
    others = await provider.chat(model=FREE, max_tokens=1)
    assert not {"deprecation", "sunset"} & set(others.headers)


async def test_deployment_after_its_retirement_is_neither_listed_nor_found(provider):
    retire(provider, wall_clock_ms())
    listed = (await provider.client.get("/v1/models")).json()["data"]
    assert PRICED not in [model["id"] for model in listed]
    for answer in (await provider.client.get(f"/v1/models/{PRICED}"), await provider.chat()):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert "has been retired" in answer.json()["error"]["message"]


async def test_request_that_runs_at_the_retirement_is_finished(provider):
    provider.runner.hold_back()
    asking = asyncio.create_task(provider.chat(max_tokens=2))
    while not provider.runner.waits:
        await asyncio.sleep(0)
    retire(provider, wall_clock_ms())
    provider.runner.let_go()
    assert (await asking).status_code == 200
    assert [row["status"] for row in provider.rows("usage")] == ["completed"]


async def test_model_shows_its_capabilities_in_the_fields_of_every_reader(provider):
    model = (await provider.client.get(f"/v1/models/{PRICED}")).json()
    most = MAX_CONTEXT - 1
    assert {model[field] for field in ("max_model_len", "context_length", "max_context_length")} == {MAX_CONTEXT}
    assert (model["max_input_tokens"], model["max_tokens"]) == (MAX_CONTEXT, most)
    assert model["architecture"] == {
        "modality": "text->text",
        "input_modalities": ["text"],
        "output_modalities": ["text"],
    }
    assert model["top_provider"] == {
        "context_length": MAX_CONTEXT,
        "max_completion_tokens": most,
        "is_moderated": False,
    }
    assert (model["reasoning"], model["reasoning_mode"], model["state"]) == (None, "none", "loaded")
    assert (model["arch"], model["quantization"], model["params_string"]) == ("fake", "Q4_1", "134.52M")
    assert model["meta"]["n_params"] == 134_515_008
    assert model["size_bytes"] == model["meta"]["size"] == len(b"weights")
    assert model["capabilities"]["structured_outputs"] == {"supported": True}
    assert model["capabilities"]["image_input"] == {"supported": False}
    assert {"tools", "structured_outputs", "max_tokens"} <= set(model["supported_parameters"])
    assert "reasoning_effort" not in model["supported_parameters"]


def test_supported_parameters_are_fields_of_the_requests():
    assert set(TEXT_PARAMETERS) <= set(TextRequest.__struct_fields__)
    assert {*TEXT_PARAMETERS, *CHAT_PARAMETERS, *REASONING_PARAMETERS} <= set(ChatRequest.__struct_fields__)


async def test_max_tokens_of_a_model_is_what_the_callers_tier_allows(provider, monkeypatch):
    monkeypatch.setattr(provider.ticket_issuer, "issue", lambda caller: unlimited_ticket(9))
    listed = (await provider.client.get("/v1/models")).json()["data"]
    one = (await provider.client.get(f"/v1/models/{PRICED}")).json()
    assert {model["max_tokens"] for model in (*listed, one)} == {9}


@pytest.mark.parametrize(
    ("mode", "efforts", "shown"),
    [
        ("always", ("high", "medium", "low"), {"mandatory": True, "default_enabled": True}),
        ("on", ("medium", "none"), {"mandatory": False, "default_enabled": True}),
        ("off", ("medium", "none"), {"mandatory": False, "default_enabled": False}),
    ],
)
async def test_model_whose_template_reasons_says_how(provider, mode, efforts, shown):
    (replica,) = provider.router.replicas
    replica.facts = replace(replica.facts, reasoning=ReasoningMode(mode), efforts=efforts)
    model = (await provider.client.get(f"/v1/models/{PRICED}")).json()
    assert model["reasoning"] == shown | {"supported_efforts": list(efforts)}
    assert model["reasoning_mode"] == mode
    assert "reasoning_effort" in model["supported_parameters"]
    assert model["capabilities"]["thinking"]["supported"]
    effort = model["capabilities"]["effort"]
    assert effort["supported"] == effort["medium"]["supported"] == ("low" in efforts)


async def test_model_for_embeddings_takes_no_chats(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, is_causal=False) as provider:
        model = (await provider.client.get(f"/v1/models/{PRICED}")).json()
    assert model["architecture"]["modality"] == "text->embeddings"
    assert (model["supported_parameters"], model["max_tokens"]) == ([], None)
    assert model["max_model_len"] == 64, "what fits into a step"
    assert not model["capabilities"]["structured_outputs"]["supported"]


async def test_model_that_is_not_loaded_yet_shows_what_models_toml_says(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, started=False) as provider:
        model = (await provider.client.get(f"/v1/models/{PRICED}")).json()
    assert (model["state"], model["max_model_len"], model["arch"], model["meta"]) == (
        "not-loaded",
        MAX_CONTEXT,
        None,
        None,
    )
