"""llama-index: its LLM for servers that are like OpenAI's, its agent, its embeddings."""

from __future__ import annotations

import asyncio

import runner
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from runner import HELLO, JUDGE, MODEL, RESULT, SYSTEM, WEATHER

BASE = f"{runner.BASE_URL}/v1"


class Verdict(BaseModel):
    """A verdict."""

    mood: str
    score: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return RESULT


TOOL = FunctionTool.from_defaults(get_weather)


def model(key: str = runner.KEY, **options) -> OpenAILike:
    options = {"is_chat_model": True, "is_function_calling_model": True, "max_retries": 0} | options
    return OpenAILike(model=MODEL, api_base=BASE, api_key=key, context_window=8192, **options)


def chat(key: str = runner.KEY, **options):
    return model(key, **options).chat([ChatMessage(role="user", content=HELLO)])


def stream(**options) -> str:
    return "".join(piece.delta or "" for piece in model(**options).stream_chat([ChatMessage(HELLO)]))


def tools(**options) -> str:
    """Return the answer after a whole round trip, streamed."""
    agent = FunctionAgent(tools=[TOOL], llm=model(**options), system_prompt=SYSTEM)

    async def run() -> str:
        return str(await agent.run(WEATHER))

    return asyncio.run(run())


def structured(**options) -> dict:
    return model(**options).as_structured_llm(Verdict).complete(JUDGE).raw.model_dump()


def embed(**options) -> int:
    made = OpenAILikeEmbedding(model_name=MODEL, api_base=BASE, api_key=runner.KEY, **options)
    return len(made.get_text_embedding_batch(["a", "b"]))


OPTIONS = (
    {"temperature": 0.2},
    {"max_tokens": 60},
    {"additional_kwargs": {"stop": ["."]}},
    {"additional_kwargs": {"top_p": 0.9, "seed": 3}},
    {"additional_kwargs": {"extra_body": {"top_k": 5}}},
    {"should_use_structured_outputs": True},
    {"strict": True},
)

if __name__ == "__main__":
    whole = chat()
    usage = whole.raw.usage
    runner.report(
        chat=whole.message.content,
        stream=stream(),
        usage=[[usage.prompt_tokens, usage.completion_tokens]],
        tools=tools(),
        structured=structured(),
        embeddings=embed(),
        errors=runner.errors(chat),
    )
    runner.vary(
        [
            *(lambda options=options: chat(**options) for options in OPTIONS),
            *(lambda options=options: stream(**options) for options in OPTIONS),
            *(lambda options=options: tools(**options) for options in OPTIONS[:2]),
            *(lambda options=options: structured(**options) for options in OPTIONS[-2:]),
            lambda: model().chat([ChatMessage(role="system", content=SYSTEM), ChatMessage(HELLO)]),
            lambda: model(is_chat_model=False, max_tokens=5).complete("Once"),
            lambda: model().predict_and_call([TOOL], WEATHER),
            lambda: model().chat_with_tools([TOOL], WEATHER, tool_required=True),
            lambda: embed(dimensions=32),
        ]
    )
