"""An alias in place of a deployment's name: every endpoint answers for, bills and limits the deployment."""

from __future__ import annotations

import json

import pytest

from inferd.server.endpoints.generation import generation_route
from inferd.serving.batches.input_lines import ENDPOINT_OF_PATH, LineReader, RawLine
from inferd.serving.endpoints.messages import Messages
from tests.serving.provider import FREE, PRICED, running_provider

pytestmark = pytest.mark.anyio

ALIAS, PATTERN = "gpt-4o-mini", "claude-haiku-4-5-20251001"
HI = [{"role": "user", "content": "hi"}]
BODIES = {
    "/v1/chat/completions": {"messages": HI, "max_tokens": 1},
    "/v1/responses": {"input": "hi", "max_output_tokens": 1},
    "/v1/messages": {"messages": HI, "max_tokens": 1},
    "/v1/completions": {"prompt": "hi", "max_tokens": 1},
    "/v1/embeddings": {"input": "hi"},
}
UNBILLED = {
    "/v1/messages/count_tokens": {"messages": HI},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [104]},
}


@pytest.fixture
async def provider(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch) as running:
        yield running


def test_bodies_cover_every_generating_endpoint():
    assert set(BODIES) == {*ENDPOINT_OF_PATH, generation_route(Messages).path}


@pytest.mark.parametrize("path", BODIES)
async def test_alias_in_a_request_is_answered_and_billed_as_its_deployment(provider, path):
    response = await provider.client.post(path, json={"model": ALIAS, **BODIES[path]})
    assert (response.status_code, response.json()["model"]) == (200, PRICED)
    await provider.idle()
    assert provider.usage_row()["deployment"] == PRICED


@pytest.mark.parametrize("path", [path for path in BODIES if path != "/v1/embeddings"])
async def test_alias_in_a_streamed_request_is_answered_with_its_deployment(provider, path):
    response = await provider.client.post(path, json={"model": PATTERN, "stream": True, **BODIES[path]})
    assert response.status_code == 200
    assert f'"model":"{FREE}"' in response.text
    assert PATTERN not in response.text


@pytest.mark.parametrize("path", UNBILLED)
async def test_alias_in_an_unbilled_request_is_its_deployment(provider, path):
    of_alias = await provider.client.post(path, json={"model": ALIAS, **UNBILLED[path]})
    of_name = await provider.client.post(path, json={"model": PRICED, **UNBILLED[path]})
    assert (of_alias.status_code, of_alias.json()) == (200, of_name.json())


@pytest.mark.parametrize("path", ENDPOINT_OF_PATH)
async def test_alias_in_a_line_of_a_batch_is_its_deployment(provider, path):
    text = {"custom_id": "a", "method": "POST", "url": path, "body": {"model": ALIAS, **BODIES[path]}}
    line = LineReader(provider.router, path, strict=False).read(RawLine(1, json.dumps(text).encode()))
    assert line.deployment.name == PRICED


async def test_rights_of_a_key_are_checked_on_the_deployment_of_an_alias(provider):
    """A key for one deployment reaches no other by an alias, and its own by each."""
    headers = {"authorization": f"Bearer {provider.new_key('acme', models=[FREE])}"}
    for path, body in (BODIES | UNBILLED).items():
        response = await provider.client.post(path, json={"model": ALIAS, **body}, headers=headers)
        assert (response.status_code, response.json()["error"]["message"].count(PRICED)) == (403, 1), path
    assert (await provider.client.get(f"/v1/models/{ALIAS}", headers=headers)).status_code == 403
    allowed = await provider.client.post(
        "/v1/chat/completions", json={"model": PATTERN, **BODIES["/v1/chat/completions"]}, headers=headers
    )
    assert allowed.status_code == 200
    await provider.idle()
    assert [row["deployment"] for row in provider.rows("usage")] == [FREE]


async def test_models_of_a_key_are_deployments_not_aliases(provider):
    headers = {"authorization": f"Bearer {provider.new_key('acme', models=[ALIAS])}"}
    assert (await provider.client.get("/v1/models", headers=headers)).json()["data"] == []
    assert (await provider.client.get(f"/v1/models/{ALIAS}", headers=headers)).status_code == 403


async def test_models_list_has_deployments_with_their_aliases(provider):
    listed = (await provider.client.get("/v1/models")).json()["data"]
    named = {model["id"]: model["aliases"] for model in listed}
    assert (named[PRICED], named[FREE]) == ([ALIAS], ["claude-haiku-*"])
    assert not {ALIAS, "claude-haiku-*"} & set(named)


@pytest.mark.parametrize(("alias", "name"), [(ALIAS, PRICED), (PATTERN, FREE)])
async def test_model_of_an_alias_is_its_deployment(provider, alias, name):
    assert (await provider.client.get(f"/v1/models/{alias}")).json()["id"] == name


@pytest.mark.parametrize(
    ("name", "guess"), [("gpt-4o-min", ALIAS), ("local/tny", PRICED), ("claude-haiku", "claude-haiku-*"), ("zzz", None)]
)
async def test_unknown_model_is_asked_about_if_its_name_is_nearly_one(provider, name, guess):
    asked = {"model": name, **BODIES["/v1/chat/completions"]}
    for answer in (
        await provider.client.post("/v1/chat/completions", json=asked),
        await provider.client.get(f"/v1/models/{name}"),
    ):
        message = answer.json()["error"]["message"]
        assert answer.status_code == 404
        assert (f"did you mean `{guess}`?" in message) if guess else ("did you mean" not in message)


async def test_unknown_model_is_no_reason_to_name_one_that_the_key_may_not_use(provider):
    headers = {"authorization": f"Bearer {provider.new_key('acme', models=[FREE])}"}
    answer = await provider.client.get("/v1/models/gpt-4o-min", headers=headers)
    assert "did you mean" not in answer.json()["error"]["message"]
