"""Credit that is merely held: an SDK that obeys Retry-After gets through (BILLING R4)."""

from __future__ import annotations

import asyncio

from openai import AsyncOpenAI

from tests.e2e.server_process import PATIENCE_S, ServerProcess
from tests.e2e.test_cut_off import MODELS_TOML, PRICED
from tests.e2e.test_fail_points import FAKE

MAX_TOKENS, NUM_TOKENS = 1500, 500
WORST_CASE_NANOUSD = MAX_TOKENS * 1700


def test_sdk_gets_through_with_two_retries_while_its_team_holds_all_credit(tmp_path):
    """The credit covers the worst case of one of three requests at a time, and what all of them cost."""
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    server = ServerProcess(tmp_path, MODELS_TOML)
    try:
        server.start(FAKE)
        team = server.team("small-credit", 19 * WORST_CASE_NANOUSD // 10)

        async def ask() -> int:
            async with AsyncOpenAI(base_url=server.base_url, api_key=team.key, timeout=PATIENCE_S) as client:
                answer = await client.chat.completions.create(
                    model=PRICED,
                    messages=[{"role": "user", "content": "Hi"}],
                    max_tokens=MAX_TOKENS,
                    extra_body={"grammar": f"start: /[a-z]{{{NUM_TOKENS}}}/"},
                )
            assert answer.usage is not None
            return answer.usage.completion_tokens

        async def ask_all() -> list[int]:
            return await asyncio.gather(*(ask() for _ in range(3)))

        assert asyncio.run(ask_all()) == [NUM_TOKENS] * 3
    finally:
        server.stop()
