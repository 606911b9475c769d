"""langchain-anthropic."""

from __future__ import annotations

import runner
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from runner import HELLO, JUDGE, RESULT, SYSTEM, WEATHER


class Verdict(BaseModel):
    """A verdict."""

    mood: str
    score: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return RESULT


def model(key: str = runner.KEY, **options) -> ChatAnthropic:
    options = {"max_tokens": 200, "max_retries": 0} | options
    return ChatAnthropic(model=runner.MODEL, base_url=runner.BASE_URL, api_key=key, **options)


def usage_of(message) -> list[int]:
    return [message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"]]


def tools(**options) -> str:
    """Return the answer after a whole round trip."""
    bound = model(**options).bind_tools([get_weather])
    asked = HumanMessage(WEATHER)
    called = bound.invoke([asked])
    return bound.invoke([asked, called, get_weather.invoke(called.tool_calls[0])]).text


def stream(**options) -> str:
    return "".join(piece.text for piece in model(**options).stream(HELLO))


OPTIONS = (
    {"temperature": 0.2},
    {"top_p": 0.9, "top_k": 3},
    {"stop": ["."]},
    {"max_tokens": 6},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
    {"betas": ["context-management-2025-06-27"]},
    {"model_kwargs": {"metadata": {"user_id": "ann"}}},
)

if __name__ == "__main__":
    whole = model().invoke(HELLO)
    runner.report(
        chat=whole.text,
        stream=stream(),
        usage=[usage_of(whole)],
        tools=tools(),
        structured=model().with_structured_output(Verdict).invoke(JUDGE).model_dump(),
        errors=runner.errors(lambda key: model(key).invoke(HELLO)),
    )
    runner.vary(
        [
            *(lambda options=options: model(**options).invoke(HELLO) for options in OPTIONS),
            *(lambda options=options: stream(**options) for options in OPTIONS),
            *(lambda options=options: tools(**options) for options in OPTIONS[:3]),
            lambda: model().invoke([SystemMessage(SYSTEM), HumanMessage(HELLO)]),
            lambda: model().with_structured_output(Verdict, method="json_schema").invoke(JUDGE),
            lambda: model().bind_tools([get_weather], tool_choice="any").invoke(WEATHER),
            lambda: model().bind_tools([get_weather], tool_choice="get_weather").invoke(WEATHER),
        ]
    )
