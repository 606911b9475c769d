"""LiteLLM's SDK, as a client of OpenAI's API and of Anthropic's."""

from __future__ import annotations

import json

import litellm
import runner
from runner import HELLO, JUDGE, MODEL, RESULT, TURNS, WEATHER, WEATHER_TOOL

OPENAI = {"model": f"openai/{MODEL}", "api_base": f"{runner.BASE_URL}/v1", "api_key": runner.KEY}
ANTHROPIC = {"model": f"anthropic/{MODEL}", "api_base": runner.BASE_URL, "api_key": runner.KEY}
VLLM = OPENAI | {"model": f"hosted_vllm/{MODEL}"}
OPENROUTER = OPENAI | {"model": f"openrouter/{MODEL}"}
litellm.suppress_debug_info = True
litellm.telemetry = False


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def chat(**options):
    return litellm.completion(**{**OPENAI, "messages": ask(HELLO), "max_retries": 0, "max_tokens": 200} | options)


def text_of(answer) -> str:
    return answer.choices[0].message.content


def usage_of(answer) -> list[int]:
    return [answer.usage.prompt_tokens, answer.usage.completion_tokens]


def stream(**options) -> tuple[str, list[int]]:
    chunks = list(chat(stream=True, stream_options={"include_usage": True}, **options))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    return text, next(usage_of(chunk) for chunk in reversed(chunks) if getattr(chunk, "usage", None))


def tools(**options) -> str:
    """Return the answer after a whole round trip."""
    turns = ask(WEATHER)
    called = chat(messages=turns, tools=[WEATHER_TOOL], **options).choices[0].message
    (call,) = called.tool_calls
    turns += [called, {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
    return text_of(chat(messages=turns, tools=[WEATHER_TOOL], **options))


def structured(**options) -> dict:
    schema = {"name": "verdict", "schema": runner.VERDICT_SCHEMA, "strict": True}
    form = {"type": "json_schema", "json_schema": schema}
    return json.loads(text_of(chat(messages=ask(JUDGE), response_format=form, **options)))


def response(text: str = HELLO, **options) -> str:
    made = litellm.responses(**{**OPENAI, "input": text} | options)
    return "".join(part.text for item in made.output if item.type == "message" for part in item.content)


def embed(**options) -> int:
    return len(litellm.embedding(**OPENAI, input=["a", "b"], **options).data)


if __name__ == "__main__":
    whole = chat()
    streamed, stream_usage = stream()
    runner.report(
        chat=text_of(whole),
        stream=streamed,
        usage=[usage_of(whole), stream_usage],
        tools=tools(),
        structured=structured(),
        embeddings=embed(encoding_format="float"),
        response=response(),
        anthropic=[text_of(chat(**ANTHROPIC)), tools(**ANTHROPIC)],
        errors=runner.errors(lambda key: chat(api_key=key)),
    )
    runner.vary(
        [
            *(lambda options=options: chat(**options, drop_params=True) for options in runner.OPTIONS),
            *(lambda options=options: stream(**options, drop_params=True) for options in runner.OPTIONS[:8]),
            *(lambda options=options: chat(**ANTHROPIC, **options, drop_params=True) for options in runner.OPTIONS),
            *(lambda options=options: chat(**VLLM, **options, drop_params=True) for options in runner.OPTIONS[:9]),
            *(
                lambda options=options: chat(**OPENROUTER, **options, drop_params=True)
                for options in runner.OPTIONS[:5]
            ),
            lambda: chat(**OPENROUTER, usage={"include": True}),
            lambda: chat(**VLLM, min_tokens=2, top_k=20, repetition_penalty=1.1),
            lambda: chat(messages=TURNS),
            lambda: stream(**ANTHROPIC),
            lambda: structured(**ANTHROPIC),
            lambda: tools(**VLLM),
            lambda: response(instructions=runner.SYSTEM, max_output_tokens=9),
            lambda: response(reasoning={"effort": "low"}, metadata={"a": "b"}),
            lambda: litellm.text_completion(
                **OPENAI | {"model": f"text-completion-openai/{MODEL}"}, prompt="Once", max_tokens=5
            ),
            embed,
        ]
    )
