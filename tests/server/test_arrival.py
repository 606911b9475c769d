"""What every call for text has in common, in whatever shape it comes."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.deployments.local_replica import LocalReplica
from inferd.engine.messages import AddRequest
from tests.serving.provider import PRICED, Provider, chat_body

pytestmark = pytest.mark.anyio

SHAPES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat_body(max_tokens=1),
    "/v1/completions": {"model": PRICED, "prompt": "a", "max_tokens": 1},
    "/v1/responses": {"model": PRICED, "input": "a", "max_output_tokens": 1},
    "/v1/messages": {"model": PRICED, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
}
USER: dict[str, dict[str, Any]] = {path: {"user": "body"} for path in SHAPES} | {
    "/v1/messages": {"metadata": {"user_id": "body"}}
}


@pytest.fixture
def submitted(monkeypatch) -> list[AddRequest]:
    """What the engine was asked."""
    asked: list[AddRequest] = []
    submit = LocalReplica.submit

    def seen(self: LocalReplica, request: AddRequest) -> Any:
        asked.append(request)
        return submit(self, request)

    monkeypatch.setattr(LocalReplica, "submit", seen)
    return asked


async def ask(provider: Provider, path: str, body: dict[str, Any], **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await provider.client.post(path, json=body, headers=named)).status_code


@pytest.mark.parametrize("path", SHAPES)
async def test_the_header_names_the_conversation_before_the_body_does(provider, submitted, path):
    assert await ask(provider, path, SHAPES[path] | USER[path], x_session_affinity="header") == 200
    assert await ask(provider, path, SHAPES[path] | USER[path]) == 200
    assert await ask(provider, path, SHAPES[path]) == 200
    assert [request.session for request in submitted] == ["header", "body", None]


@pytest.mark.parametrize("path", SHAPES)
async def test_an_isolation_key_parts_the_cache_within_the_team_and_never_joins_two(provider, submitted, path):
    provider.grant(10**9, "acme")
    other = provider.new_key("other")
    provider.grant(10**9, "other")
    assert await ask(provider, path, SHAPES[path]) == 200
    assert await ask(provider, path, SHAPES[path], x_prompt_cache_isolation_key="k") == 200
    assert await ask(provider, path, SHAPES[path], x_prompt_cache_isolation_key="k") == 200
    assert (
        await ask(provider, path, SHAPES[path], x_prompt_cache_isolation_key="k", authorization=f"Bearer {other}")
        == 200
    )
    mine, parted, again, others = (request.cache_scope for request in submitted)
    assert parted == again
    assert len({mine, parted, others}) == 3


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("name", ["x_session_affinity", "x_prompt_cache_isolation_key"])
async def test_a_tag_without_measure_is_refused_by_its_name_and_costs_nothing(provider, path, name):
    assert await ask(provider, path, SHAPES[path], **{name: "x" * 513}) == 400
    assert await ask(provider, path, SHAPES[path], **{name: "x" * 512}) == 200
    assert len(provider.rows("usage")) == 1
