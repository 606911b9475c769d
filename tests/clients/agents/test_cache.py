"""Share of an agent's prompts that the prefix cache has: the next turn of a session, and a second session.

The tokenizer, the chat template and the KV cache are the real ones; the ledger's counts are compared.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.clients.agents.agents import AGENTS, PROGRAM, ask
from tests.clients.agents.conftest import PLAIN, turns
from tests.clients.agents.scripted_server import Script

pytestmark = [pytest.mark.slow, pytest.mark.clients]

MIN_SHARE_OF_A_SESSION = 0.90
"""Of the first prompt of a second session, in the same folder with another question."""
MIN_SHARE_OF_A_TURN = 0.98
"""Of what a turn repeats: the prompt before it and the answer to that."""
MIN_SHARE_OF_QWEN_RESUMED = 0.95
"""Qwen Code leaves out of a session that it resumes what it had added to the first question."""


def repeated_shares(rows: list[dict[str, int]]) -> list[float]:
    """Return for each turn but the first the cached share of the tokens that it repeats."""
    return [
        after["cached_tokens"] / (before["prompt_tokens"] + before["completion_tokens"])
        for before, after in pairwise(rows)
    ]


@pytest.mark.parametrize("model", [PLAIN])
@pytest.mark.parametrize("agent", [name for name in AGENTS if AGENTS[name].task("")])
def test_agent_finds_its_turns_and_its_next_session_cached(agent, model, setting, recorder, script_path, team):
    program = setting.write_program()
    Script("The program is mended.", AGENTS[agent].task(str(program))).write(script_path)
    ask(AGENTS[agent], f"Mend {PROGRAM} and run it.", setting)
    ask(AGENTS[agent], "Say it again.", setting, resumes=True)
    session = turns(recorder, team)
    assert len(session) == 5, "three calls, the answer, and one more turn"
    *inside, resumed = repeated_shares(session)
    assert min(inside) >= MIN_SHARE_OF_A_TURN
    assert resumed >= (MIN_SHARE_OF_QWEN_RESUMED if agent == "qwen-code" else MIN_SHARE_OF_A_TURN)
    num_before = len(recorder.billed)
    Script("A lens.").write(script_path)
    ask(AGENTS[agent], "Explain how a lighthouse works.", setting)
    (second,) = turns(recorder, team, num_before)
    print(  # for docs/performance.md: pytest -rP
        f"{agent}: {session[0]['prompt_tokens']} tokens; turns {min(inside):.2%}; resumed {resumed:.2%}; "
        f"second session {second['cached_tokens'] / second['prompt_tokens']:.2%}"
    )
    assert second["cached_tokens"] >= MIN_SHARE_OF_A_SESSION * second["prompt_tokens"]
