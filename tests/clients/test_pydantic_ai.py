"""pydantic-ai: agents whose tools and outputs are typed."""

from __future__ import annotations

from typing import Literal

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


def model(team, key: str | None = None) -> OpenAIChatModel:
    return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=team.server.base_url, api_key=key or team.key))


def agent(team, **options) -> Agent:
    return Agent(model(team), model_settings={"max_tokens": 120, "temperature": 0}, retries=0, **options)


async def test_chat_and_stream(team):
    short = Agent(model(team), model_settings={"max_tokens": 12, "temperature": 0})
    assert (await short.run("Say hello.")).output
    async with short.run_stream("Say hello.") as stream:
        assert [text async for text in stream.stream_text(delta=True, debounce_by=None)]


@pytest.mark.parametrize("output", [Verdict, NativeOutput(Verdict)], ids=["as a tool", "as a response format"])
async def test_structured_output(team, output):
    done = await agent(team, output_type=output).run("How is the weather in Paris?")
    assert isinstance(done.output, Verdict)


async def test_structured_output_streamed(team):
    async with agent(team, output_type=Verdict).run_stream("How is the weather in Paris?") as stream:
        assert isinstance(await stream.get_output(), Verdict)


async def test_tools_beside_an_output_tool(team):
    """Every turn has to call one: the tool, or the output that ends the run."""
    made = agent(team, output_type=Verdict)
    calls = []

    @made.tool_plain
    def note(number: Literal[1, 2]) -> str:
        """Notes a number."""
        calls.append(number)
        return "noted"

    try:
        done = await made.run("Note the number one, then judge it.", usage_limits=UsageLimits(request_limit=4))
    except UsageLimitExceeded:
        assert len(calls) >= 4, "a small model may never tire of it"
    else:
        assert isinstance(done.output, Verdict)


async def test_errors(team):
    with pytest.raises(ModelHTTPError) as refused:
        await Agent(model(team, "sk-wrong")).run("Hi")
    assert refused.value.status_code == 401
