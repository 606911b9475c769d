"""smolagents: an agent that calls tools, one that writes code, and the model below them."""

from __future__ import annotations

import runner
from runner import HELLO, JUDGE, MODEL, RESULT, SYSTEM, WEATHER
from smolagents import OpenAIServerModel, ToolCallingAgent, tool


@tool
def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: A city.
    """
    return RESULT


def model(key: str = runner.KEY, **options) -> OpenAIServerModel:
    client = {"max_retries": 0}
    return OpenAIServerModel(
        MODEL, api_base=f"{runner.BASE_URL}/v1", api_key=key, client_kwargs=client, retry=False, **options
    )


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def chat(key: str = runner.KEY, text: str = HELLO, **options):
    return model(key).generate(ask(text), **options)


def stream(**options) -> str:
    return "".join(piece.content or "" for piece in model().generate_stream(ask(HELLO), **options))


def agent(**options) -> str:
    """Return the answer of an agent after its tool has run."""
    return str(ToolCallingAgent([get_weather], model(), max_steps=3, verbosity_level=0, **options).run(WEATHER))


SCHEMA = {"name": "verdict", "schema": runner.VERDICT_SCHEMA, "strict": True}
FORM = {"type": "json_schema", "json_schema": SCHEMA}

if __name__ == "__main__":
    whole = chat()
    runner.report(
        chat=whole.content,
        stream=stream(),
        usage=[[whole.token_usage.input_tokens, whole.token_usage.output_tokens]],
        tools=agent(),
        structured=chat(text=JUDGE, response_format=FORM).content,
        errors=runner.errors(chat),
    )
    options = ({"temperature": 0.1}, {"max_tokens": 20}, {"stop_sequences": ["."]}, {"seed": 4, "top_p": 0.9})
    runner.vary(
        [
            *(lambda each=each: chat(**each) for each in options),
            *(lambda each=each: stream(**each) for each in options),
            lambda: model().generate([{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}, *ask(HELLO)]),
            lambda: chat(text=WEATHER, tools_to_call_from=[get_weather]),
            lambda: chat(text=WEATHER, tools_to_call_from=[get_weather], tool_choice="auto"),
            lambda: agent(instructions=SYSTEM),
            lambda: agent(stream_outputs=True),
            lambda: agent(planning_interval=1),
        ]
    )
