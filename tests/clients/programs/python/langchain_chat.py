"""langchain-openai, by chat completions and by Responses."""

from __future__ import annotations

import runner
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from runner import HELLO, JUDGE, MODEL, RESULT, SYSTEM, WEATHER

BASE = f"{runner.BASE_URL}/v1"


class Verdict(BaseModel):
    """A verdict."""

    mood: str
    score: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return RESULT


def model(key: str = runner.KEY, **options) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=BASE, api_key=key, max_retries=0, **options)


def tools(**options) -> str:
    """Return the answer after a whole round trip."""
    bound = model(**options).bind_tools([get_weather])
    asked = HumanMessage(WEATHER)
    called = bound.invoke([asked])
    return bound.invoke([asked, called, get_weather.invoke(called.tool_calls[0])]).text


def stream(**options) -> str:
    return "".join(piece.text for piece in model(**options).stream(HELLO))


def embed(**options) -> int:
    return len(OpenAIEmbeddings(model=MODEL, base_url=BASE, api_key=runner.KEY, **options).embed_documents(["a", "b"]))


TEXTS = {"check_embedding_ctx_length": False}
OPTIONS = (
    {"temperature": 0.2, "top_p": 0.9},
    {"stop": ["."], "seed": 3},
    {"max_tokens": 6},
    {"n": 2},
    {"logprobs": True, "top_logprobs": 2},
    {"presence_penalty": 0.1, "frequency_penalty": 0.2},
    {"reasoning_effort": "low"},
    {"stream_usage": True, "model_kwargs": {"user": "ann"}},
    {"extra_body": {"top_k": 5, "min_p": 0.1}},
    {"use_responses_api": True},
    {"use_responses_api": True, "reasoning": {"effort": "low", "summary": "auto"}},
    {"use_responses_api": True, "temperature": 0.1, "max_tokens": 20, "store": False},
    {"use_responses_api": True, "output_version": "responses/v1", "truncation": "auto"},
)

if __name__ == "__main__":
    whole = model().invoke(HELLO)
    runner.report(
        chat=whole.text,
        stream=stream(),
        usage=[[whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]]],
        tools=tools(),
        structured=model().with_structured_output(Verdict).invoke(JUDGE).model_dump(),
        embeddings=embed(**TEXTS),
        responses=[stream(use_responses_api=True), tools(use_responses_api=True)],
        errors=runner.errors(lambda key: model(key).invoke(HELLO)),
    )
    runner.vary(
        [
            *(lambda options=options: model(**options).invoke(HELLO) for options in OPTIONS),
            *(lambda options=options: stream(**options) for options in OPTIONS),
            *(lambda options=options: tools(**options) for options in OPTIONS[:2] + OPTIONS[-3:]),
            lambda: model().invoke([SystemMessage(SYSTEM), HumanMessage("Who?"), AIMessage("I"), HumanMessage(HELLO)]),
            lambda: model().with_structured_output(Verdict, method="function_calling").invoke(JUDGE),
            lambda: model().with_structured_output(Verdict, method="json_mode").invoke(f"{JUDGE} In JSON."),
            lambda: model(use_responses_api=True).with_structured_output(Verdict).invoke(JUDGE),
            lambda: model().bind_tools([get_weather], tool_choice="any", strict=True).invoke(WEATHER),
            lambda: model().bind_tools([get_weather], tool_choice="get_weather").invoke(WEATHER),
            lambda: model().bind_tools([get_weather], parallel_tool_calls=False).invoke(WEATHER),
            lambda: OpenAI(model=MODEL, base_url=BASE, api_key=runner.KEY, max_tokens=5).invoke("Once"),
            lambda: embed(dimensions=32, **TEXTS),
        ]
    )
