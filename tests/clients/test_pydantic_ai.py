"""pydantic-ai: agents whose tools and outputs are typed."""

from __future__ import annotations

from typing import Literal

import openai
import pytest
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError, UsageLimitExceeded
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import UsageLimits

from tests.clients.conftest import MODEL

pytestmark = pytest.mark.anyio


class Verdict(BaseModel):
    """What one thinks of a thing."""

    mood: Literal["good", "bad"]
    score: int = Field(ge=0, le=9)


@pytest.fixture
async def client(team):
    async with openai.AsyncOpenAI(base_url=team.server.base_url, api_key=team.key, max_retries=0) as client:
        yield client


def agent(client, max_tokens: int = 120, **options) -> Agent:
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
    return Agent(model, model_settings={"max_tokens": max_tokens, "temperature": 0}, retries=0, **options)


async def test_chat_and_stream(client):
    short = agent(client, max_tokens=12)
    assert (await short.run("Say hello.")).output
    async with short.run_stream("Say hello.") as stream:
        assert [text async for text in stream.stream_text(delta=True, debounce_by=None)]


@pytest.mark.parametrize("output", [Verdict, NativeOutput(Verdict)], ids=["as a tool", "as a response format"])
async def test_structured_output(client, output):
    done = await agent(client, output_type=output).run("How is the weather in Paris?")
    assert isinstance(done.output, Verdict)


async def test_structured_output_streamed(client):
    async with agent(client, output_type=Verdict).run_stream("How is the weather in Paris?") as stream:
        assert isinstance(await stream.get_output(), Verdict)


async def test_tools_beside_an_output_tool(client):
    """Every turn has to call one: the tool, or the output that ends the run."""
    made = agent(client, output_type=Verdict)
    calls = []

    @made.tool_plain
    def note(number: Literal[1, 2]) -> str:
        """Notes a number."""
        calls.append(number)
        return "noted"

    try:
        done = await made.run("Note the number one, then judge it.", usage_limits=UsageLimits(request_limit=2))
    except UsageLimitExceeded:
        assert len(calls) >= 2, "a small model may never tire of it"
    else:
        assert isinstance(done.output, Verdict)


async def test_errors(client):
    with pytest.raises(ModelHTTPError) as refused:
        await agent(client.with_options(api_key="sk-wrong")).run("Hi")
    assert refused.value.status_code == 401
