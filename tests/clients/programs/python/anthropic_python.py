"""anthropic, the official client for Python."""

from __future__ import annotations

import anthropic
import runner
from runner import HELLO, JUDGE, MODEL, RESULT, SYSTEM, WEATHER, WEATHER_SCHEMA

TOOL = {"name": "get_weather", "description": "The weather of a city.", "input_schema": WEATHER_SCHEMA}
CACHED = {"type": "ephemeral"}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def client(key: str = runner.KEY) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=runner.BASE_URL, api_key=key, max_retries=0)


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def chat(key: str = runner.KEY, **options):
    return client(key).messages.create(**{"model": MODEL, "max_tokens": 200, "messages": ask(HELLO)} | options)


def text_of(message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def usage_of(message) -> list[int]:
    usage = message.usage
    return [usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens]


def stream(**options):
    with client().messages.stream(**{"model": MODEL, "max_tokens": 200, "messages": ask(HELLO)} | options) as events:
        return events.get_final_message()


def tools(send=chat, **options) -> str:
    """Return the answer after a whole round trip."""
    turns = ask(WEATHER)
    called = send(messages=turns, tools=[TOOL], **options)
    (call,) = [block for block in called.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    turns += [{"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    return text_of(send(messages=turns, tools=[TOOL], **options))


def structured() -> dict:
    """Return the arguments of a tool that the model has to call: this is how the Messages API asks for JSON."""
    tool = {"name": "Verdict", "input_schema": runner.VERDICT_SCHEMA}
    called = chat(messages=ask(JUDGE), tools=[tool], tool_choice={"type": "tool", "name": "Verdict"})
    return next(block.input for block in called.content if block.type == "tool_use")


OPTIONS = (
    {"system": SYSTEM},
    {"system": [{"type": "text", "text": SYSTEM, "cache_control": CACHED}]},
    {"temperature": 0.3, "top_p": 0.9, "top_k": 20},
    {"max_tokens": 5},
    {"stop_sequences": ["."]},
    {"metadata": {"user_id": "user_0_account__session_8a4c6f1e"}},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
    {"thinking": {"type": "disabled"}},
    {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
    {"service_tier": "auto"},
    {"tools": [TOOL], "tool_choice": {"type": "none"}},
    {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    {"tools": [{**TOOL, "cache_control": CACHED}], "tool_choice": {"type": "auto"}},
    {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]},
    {"messages": [*ask("Who are you?"), {"role": "assistant", "content": "The keeper."}, *ask("Of what?")]},
    {"messages": [{"role": "user", "content": [PICTURE, {"type": "text", "text": "What is it?"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": HELLO, "cache_control": CACHED}]}]},
    {"messages": [*ask("Count."), {"role": "assistant", "content": "1, 2,"}]},
    {"output_config": {"format": {"type": "json_schema", "schema": runner.VERDICT_SCHEMA}}, "messages": ask(JUDGE)},
)

if __name__ == "__main__":
    whole, streamed = chat(), stream()
    runner.report(
        chat=text_of(whole),
        stream=text_of(streamed),
        usage=[usage_of(whole), usage_of(streamed)],
        tools=tools(),
        streamed_tools=tools(stream),
        structured=structured(),
        counted=client().messages.count_tokens(model=MODEL, messages=ask(HELLO)).input_tokens - usage_of(whole)[0],
        errors=runner.errors(chat),
        models=[model.id for model in client().models.list()],
    )
    runner.vary(
        [
            *(lambda options=options: chat(**options) for options in OPTIONS),
            *(lambda options=options: stream(**options) for options in OPTIONS),
            *(lambda options=options: tools(**options) for options in OPTIONS[:5]),
            lambda: client().messages.count_tokens(model=MODEL, messages=ask(HELLO), system=SYSTEM, tools=[TOOL]),
            lambda: client().beta.messages.create(
                model=MODEL,
                max_tokens=50,
                messages=ask(HELLO),
                betas=["context-management-2025-06-27"],
                context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
            ),
            lambda: client().models.retrieve(MODEL),
        ]
    )
