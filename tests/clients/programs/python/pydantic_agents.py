"""pydantic-ai, by chat completions, Responses and messages."""

from __future__ import annotations

import runner
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from runner import HELLO, JUDGE, MODEL, RESULT, SYSTEM, WEATHER


class Verdict(BaseModel):
    mood: str
    score: int


def agent(key: str = runner.KEY, kind: type = OpenAIChatModel, settings: dict | None = None, **options) -> Agent:
    provider = OpenAIProvider(base_url=f"{runner.BASE_URL}/v1", api_key=key)
    return Agent(kind(MODEL, provider=provider), model_settings=settings or {}, retries=0, **options)


def tools(**options) -> str:
    """Return the answer after a whole round trip."""
    asked = agent(**options)

    @asked.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return RESULT

    return asked.run_sync(WEATHER).output


def stream(**options) -> str:
    return "".join(agent(**options).run_stream_sync(HELLO).stream_text(delta=True, debounce_by=None))


SETTINGS = (
    {"temperature": 0.2, "top_p": 0.9},
    {"max_tokens": 100, "seed": 5},
    {"stop_sequences": ["."]},
    {"presence_penalty": 0.1, "frequency_penalty": 0.1},
    {"parallel_tool_calls": False},
    {"openai_reasoning_effort": "low"},
    {"openai_user": "ann", "extra_body": {"top_k": 4}},
)
RESPONSES = {"kind": OpenAIResponsesModel}

if __name__ == "__main__":
    done = agent().run_sync(HELLO)
    usage = done.usage
    runner.report(
        chat=done.output,
        stream=stream(),
        usage=[[usage.input_tokens, usage.output_tokens]],
        tools=tools(),
        structured=agent(output_type=Verdict).run_sync(JUDGE).output.model_dump(),
        responses=[agent(**RESPONSES).run_sync(HELLO).output, tools(**RESPONSES)],
        errors=runner.errors(lambda key: agent(key).run_sync(HELLO)),
    )
    runner.vary(
        [
            *(lambda each=each: agent(settings=each).run_sync(HELLO) for each in SETTINGS),
            *(lambda each=each: agent(settings=each, **RESPONSES).run_sync(HELLO) for each in SETTINGS),
            *(lambda each=each: stream(settings=each) for each in SETTINGS),
            *(lambda each=each: tools(settings=each) for each in SETTINGS),
            lambda: agent(instructions=SYSTEM).run_sync(HELLO),
            lambda: agent(system_prompt=SYSTEM, **RESPONSES).run_sync(HELLO),
            lambda: agent(output_type=NativeOutput(Verdict)).run_sync(JUDGE),
            lambda: agent(output_type=NativeOutput(Verdict), **RESPONSES).run_sync(JUDGE),
            lambda: agent(output_type=[Verdict, str]).run_sync(HELLO),
            lambda: agent().run_sync("And you?", message_history=done.all_messages()),
        ]
    )
