"""The recorded requests of all clients against inferd: none is refused, but for the reasons below.

Real parsers, templates, grammars and ledger; a model of bytes.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator

import pytest

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from tests.clients.replay import message_of, replays
from tests.e2e.server_process import ROOT
from tests.server.peer_fields import REFUSED as REFUSED_FIELDS
from tests.serving import provider as providers
from tests.serving.provider import PRICED, FakeModel, PacedRunner, Provider, running_provider

pytestmark = pytest.mark.anyio

TEMPLATES = ROOT / "tests" / "chat" / "dialects" / "templates"
REFUSED = {
    (400, "dimensions"): "the fake model has embeddings of 8 dimensions; a cut to more would be no cut",
    (400, "service_tier"): "the deployment has no price for this tier",
    (400, "tool_choice"): "a call is required where no tool is given",
}
"""Status and `param` of each refusal of a recorded request, and its reason: docs/clients/differences.md."""


@pytest.fixture(params=["Qwen-Qwen2.5-7B-Instruct.jinja"])
async def provider(request, tmp_path, monkeypatch) -> AsyncIterator[Provider]:
    monkeypatch.setattr(providers, "MAX_CONTEXT", 131072)
    template = (TEMPLATES / request.param).read_text()
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, template))
    brief = functools.partial(PacedRunner, answer=b"ok")
    async with running_provider(tmp_path, monkeypatch, make_runner=brief, credit_nanousd=10**13) as provider:
        with provider.store.immediate() as conn:
            operations.set_team(
                conn, "acme", operations.TeamChange(tier=5), by=operations.Author("test", wall_clock_ms())
            )
        yield provider


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
async def test_recorded_request_of_a_client_is_refused_for_a_known_reason_only(provider, every):
    """The ordinary run sends each fourth request."""
    found: dict[tuple[int, str], list[str]] = {}
    for replay in list(replays())[::every]:
        answer = await provider.client.request(
            replay.request.method, replay.target(PRICED), content=replay.content(PRICED), headers=replay.headers()
        )
        if answer.status_code >= 400:
            param = str((answer.json().get("error") or {}).get("param") or "")
            found.setdefault((answer.status_code, param), []).append(f"{replay}: {message_of(answer)}")
    assert {refusal: told for refusal, told in found.items() if refusal not in REFUSED} == {}
    if every == 1:
        assert found.keys() == REFUSED.keys(), "a reason is listed for a refusal that no longer happens"


def test_recorded_requests_are_500():
    assert sum(1 for _ in replays()) >= 500


def test_each_reason_of_a_refusal_stands_in_the_table_of_differences():
    page = (ROOT / "docs" / "clients" / "differences.md").read_text()
    assert {reason for reason in [*REFUSED.values(), *REFUSED_FIELDS.values()] if reason not in page} == set()
