"""The output length of a tier is the engine's stop, on a model whose context has room for all of them."""

from __future__ import annotations

import asyncio

import pytest

from inferd.ledger import operations
from inferd.ledger.storage.store import Store
from tests.e2e.server_process import ServerProcess, Team
from tests.engine.llama.tiny_models import write_long

MODEL = "local/long"
CONTEXT = 131_072
MODELS_TOML = f"""
[models.long]
source = "long.gguf"
max_context = {CONTEXT}
n_parallel = 5
n_threads = 1
chat_template = "chat.jinja"

[deployments."{MODEL}"]
model = "long"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 0.40
"""
OUTPUT_TOKENS = {0: 4_096, 1: 16_384, 2: 16_384, 3: 32_768, 4: 65_536}
END = {"2": -100}
NOW_MS = 1_800_000_000_000


def team_of(server: ServerProcess, tier: int) -> Team:
    name = f"tier-{tier}"
    with Store(server.data_dir).immediate() as conn:
        operations.create_team(conn, name, "free", by=operations.Author("test", NOW_MS))
        operations.set_team(conn, name, operations.TeamChange(tier=tier), by=operations.Author("test", NOW_MS))
        operations.grant_credit(conn, name, operations.NewGrant(10**9), by=operations.Author("test", NOW_MS))
        key = operations.create_key(conn, name, by=operations.Author("test", NOW_MS))
    return Team(server, name, key.id, key.key)


async def generate(team: Team) -> tuple[str | None, str, int]:
    """Ask for the whole context; return the limit that the answer names, its finish reason and its tokens."""
    async with team.http() as client:
        body = {"model": MODEL, "prompt": "a", "max_tokens": CONTEXT, "logit_bias": END}
        answer = await client.post("/completions", json=body, timeout=1200)
    assert answer.status_code == 200, answer.text
    whole = answer.json()
    return (
        answer.headers.get("inferd-max-tokens"),
        whole["choices"][0]["finish_reason"],
        whole["usage"]["completion_tokens"],
    )


@pytest.mark.slow
def test_output_length_of_each_tier_is_where_the_engine_stops(slot, tmp_path):
    slot.clear()
    write_long(tmp_path / "long.gguf", CONTEXT)
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    server = ServerProcess(tmp_path, MODELS_TOML)
    server.start()
    teams = {tier: team_of(server, tier) for tier in OUTPUT_TOKENS}

    async def all_at_once() -> list[tuple[str | None, str, int]]:
        return await asyncio.gather(*(generate(team) for team in teams.values()))

    try:
        answers = dict(zip(teams, asyncio.run(all_at_once()), strict=True))
        assert answers == {tier: (str(limit), "length", limit) for tier, limit in OUTPUT_TOKENS.items()}
        billed = {tier: [row["completion_tokens"] for row in team.usage_rows()] for tier, team in teams.items()}
        assert billed == {tier: [limit] for tier, limit in OUTPUT_TOKENS.items()}
    finally:
        server.stop()
    server.assert_audit_clean()
