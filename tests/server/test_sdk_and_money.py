"""What OpenAI's own SDK does with a 402: want of money is final, what requests under way hold is tried again."""

from __future__ import annotations

import asyncio

import httpx2
import openai
import pytest

from tests.serving.provider import PRICED, PacedRunner, cost_of, prompt_of, running_provider

pytestmark = pytest.mark.anyio
N_PROMPT = len(prompt_of())


def sdk(provider, statuses):
    """The SDK on the provider's application; `statuses` gets the status of each answer, in order."""

    async def note(response):
        statuses.append(response.status_code)

    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(provider.app), event_hooks={"response": [note]})
    return openai.AsyncOpenAI(api_key=provider.key, base_url="http://localhost/v1", http_client=client, max_retries=3)


def ask(client, max_tokens):
    messages = [{"role": "user", "content": "hello"}]
    return client.chat.completions.create(model=PRICED, messages=messages, max_tokens=max_tokens)


async def test_want_of_credit_is_not_tried_again(tmp_path, monkeypatch):
    """R6."""
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=cost_of(N_PROMPT, 3)) as provider:
        statuses = []
        with pytest.raises(openai.APIStatusError) as refused:
            await ask(sdk(provider, statuses), 4)
        assert (refused.value.status_code, refused.value.code) == (402, "credit_balance_exhausted")
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert statuses == [402]


async def test_credit_that_a_request_under_way_holds_is_tried_again_until_it_is_free(tmp_path, monkeypatch):
    """R6: the SDK obeys x-should-retry and waits as long as Retry-After says."""
    waits = []

    def brief(**options):
        return PacedRunner(answer=b"so", **options)

    async def wait(seconds):
        waits.append(seconds)
        provider.runner.let_go()
        await provider.until(lambda: provider.hold_states() == ["settled"])

    async with running_provider(
        tmp_path, monkeypatch, credit_nanousd=cost_of(N_PROMPT, 20), make_runner=brief
    ) as provider:
        statuses = []
        client = sdk(provider, statuses)
        provider.runner.hold_back()
        first = asyncio.create_task(ask(client, 20))
        await provider.until(lambda: provider.hold_states() == ["held"])
        monkeypatch.setattr("openai._base_client.anyio.sleep", wait)
        second = await ask(client, 1)
        await first
        assert second.usage.completion_tokens == 1
        assert (statuses, waits) == ([402, 200, 200], [1.0])
