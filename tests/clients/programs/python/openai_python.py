"""openai, the official client for Python: chat, Responses, embeddings."""

from __future__ import annotations

import openai
import runner
from pydantic import BaseModel
from runner import HELLO, JUDGE, MODEL, RESULT, TURNS, WEATHER, WEATHER_TOOL


class Verdict(BaseModel):
    mood: str
    score: int


def client(key: str = runner.KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{runner.BASE_URL}/v1", api_key=key, max_retries=0)


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def chat(key: str = runner.KEY, **options):
    return client(key).chat.completions.create(**{"model": MODEL, "messages": ask(HELLO)} | options)


def stream(**options) -> tuple[str, list[int]]:
    chunks = list(chat(stream=True, stream_options={"include_usage": True}, **options))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    return text, usage_of(chunks[-1])


def usage_of(answer) -> list[int]:
    return [answer.usage.prompt_tokens, answer.usage.completion_tokens]


def tools(**options) -> str:
    """Return the answer after a whole round trip."""
    turns = ask(WEATHER)
    called = chat(messages=turns, tools=[WEATHER_TOOL], **options).choices[0].message
    (call,) = called.tool_calls
    turns += [called, {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
    return chat(messages=turns, tools=[WEATHER_TOOL], **options).choices[0].message.content


def responses_tools(**options) -> str:
    tool = {"type": "function", **WEATHER_TOOL["function"], "strict": True}
    create = client().responses.create
    first = create(model=MODEL, input=WEATHER, tools=[tool], store=False, **options)
    (call,) = [item for item in first.output if item.type == "function_call"]
    history = [*ask(WEATHER), *first.output]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": RESULT})
    return create(model=MODEL, input=history, tools=[tool], store=False, **options).output_text


def responses_stream(**options) -> str:
    with client().responses.stream(model=MODEL, input=HELLO, **options) as events:
        return events.get_final_response() and events.get_final_response().output_text


RESPONSES = (
    {"instructions": runner.SYSTEM},
    {"temperature": 0.1, "max_output_tokens": 9},
    {"reasoning": {"effort": "low", "summary": "auto"}},
    {"reasoning": {"effort": "none"}},
    {"include": ["reasoning.encrypted_content"]},
    {"text": {"verbosity": "low"}},
    {"text": {"format": {"type": "json_schema", "name": "v", "schema": runner.VERDICT_SCHEMA, "strict": True}}},
    {"truncation": "auto", "metadata": {"a": "b"}},
    {"tools": [{"type": "web_search"}], "tool_choice": "auto"},
    {"parallel_tool_calls": False, "prompt_cache_key": "k", "safety_identifier": "ann"},
)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
FILE = {"type": "text", "text": "What is in the picture?"}

if __name__ == "__main__":
    whole = chat()
    streamed, stream_usage = stream()
    made = client().chat.completions.parse(model=MODEL, messages=ask(JUDGE), response_format=Verdict)
    vectors = client().embeddings.create(model=MODEL, input=["a", "b"])
    raw = client().embeddings.create(model=MODEL, input="a", encoding_format="float")
    runner.report(
        chat=whole.choices[0].message.content,
        stream=streamed,
        usage=[usage_of(whole), stream_usage],
        tools=tools(),
        structured=made.choices[0].message.parsed.model_dump(),
        embeddings=[len(vectors.data), len(vectors.data[0].embedding) - len(raw.data[0].embedding)],
        errors=runner.errors(chat),
        responses=[responses_stream(), responses_tools()],
        models=[model.id for model in client().models.list()],
    )
    runner.vary(
        [
            *(lambda options=options: chat(**options) for options in runner.OPTIONS),
            *(lambda options=options: stream(**options) for options in runner.OPTIONS),
            *(lambda options=options: responses_stream(**options) for options in RESPONSES),
            *(lambda options=options: responses_tools(**options) for options in RESPONSES[:4]),
            *(lambda options=options: tools(**options) for options in runner.OPTIONS[:6]),
            lambda: chat(messages=TURNS),
            lambda: chat(messages=[{"role": "user", "content": [FILE, IMAGE]}]),
            lambda: chat(messages=[{"role": "developer", "content": "Be brief."}, *ask(HELLO)]),
            lambda: client().responses.create(model=MODEL, input=TURNS),
            lambda: client().completions.create(model=MODEL, prompt="Once", max_tokens=5),
            lambda: list(client().completions.create(model=MODEL, prompt=["Once", "Twice"], max_tokens=5, stream=True)),
            lambda: client().completions.create(model=MODEL, prompt="Once", max_tokens=5, logprobs=2, stop="."),
            lambda: client().embeddings.create(model=MODEL, input=[1, 2, 3], user="ann"),
            lambda: client().models.retrieve(MODEL),
        ]
    )
