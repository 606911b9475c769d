"""openai-agents, by chat completions and by Responses."""

from __future__ import annotations

import asyncio

import openai
import runner
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from agents import set_tracing_disabled as disable_tracing
from openai.types.shared import Reasoning
from pydantic import BaseModel
from runner import HELLO, JUDGE, MODEL, RESULT, SYSTEM, WEATHER

disable_tracing(True)
CHAT, RESPONSES = OpenAIChatCompletionsModel, OpenAIResponsesModel


class Verdict(BaseModel):
    mood: str
    score: int


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return RESULT


def agent(kind: type = CHAT, key: str = runner.KEY, **options) -> Agent:
    client = openai.AsyncOpenAI(base_url=f"{runner.BASE_URL}/v1", api_key=key, max_retries=0)
    return Agent("keeper", instructions=SYSTEM, model=kind(MODEL, client), **options)


def chat(text: str = HELLO, **options):
    return Runner.run_sync(agent(**options), text, max_turns=4)


def stream(text: str = HELLO, **options) -> str:
    async def run() -> str:
        done = Runner.run_streamed(agent(**options), text, max_turns=4)
        async for _ in done.stream_events():
            pass
        return done.final_output

    return asyncio.run(run())


SETTINGS = (
    ModelSettings(temperature=0.2, top_p=0.9),
    ModelSettings(max_tokens=100, store=False),
    ModelSettings(parallel_tool_calls=False, tool_choice="auto"),
    ModelSettings(tool_choice="required"),
    ModelSettings(reasoning=Reasoning(effort="low", summary="auto")),
    ModelSettings(truncation="auto", verbosity="low", metadata={"run": "nightly"}),
    ModelSettings(include_usage=True, presence_penalty=0.1, extra_body={"top_k": 3}),
)
TOOLS = {"tools": [get_weather]}

if __name__ == "__main__":
    whole = chat()
    usage = whole.raw_responses[0].usage
    runner.report(
        chat=whole.final_output,
        stream=stream(),
        usage=[[usage.input_tokens, usage.output_tokens]],
        tools=chat(WEATHER, **TOOLS).final_output,
        structured=chat(JUDGE, output_type=Verdict).final_output.model_dump(),
        responses=[stream(kind=RESPONSES), chat(WEATHER, kind=RESPONSES, **TOOLS).final_output],
        errors=runner.errors(lambda key: chat(key=key)),
    )
    runner.vary(
        [
            *(lambda each=each: chat(WEATHER, model_settings=each, **TOOLS) for each in SETTINGS),
            *(lambda each=each: stream(WEATHER, model_settings=each, **TOOLS) for each in SETTINGS),
            *(lambda each=each: chat(WEATHER, kind=RESPONSES, model_settings=each, **TOOLS) for each in SETTINGS),
            *(lambda each=each: stream(kind=RESPONSES, model_settings=each) for each in SETTINGS),
            lambda: chat(JUDGE, kind=RESPONSES, output_type=Verdict),
            lambda: chat(handoffs=[agent()]),
            lambda: stream(JUDGE, output_type=Verdict),
        ]
    )
