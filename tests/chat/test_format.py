"""Requests with tools and reasoning, rendered by the templates of real models."""

from __future__ import annotations

import json

import pytest

from inferd.chat.dialects.spec import ReasoningState
from inferd.chat.format import ChatFormat
from inferd.wire.answer_deltas import CallStart, ContentDelta
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from tests.chat.dialects.corpus import template_of
from tests.chat.dialects.test_families import TEMPLATE_LIST

USER = {"role": "user", "content": "What's one and one?"}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two integers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
CALLS = [
    {"id": "call_abc1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 1}'}},
    {"id": "call_abc2", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}},
]
RESULTS = [
    {"role": "tool", "tool_call_id": "call_abc1", "content": "result two"},
    {"role": "tool", "tool_call_id": "call_abc2", "content": "result four"},
]
HISTORY = [USER, {"role": "assistant", "content": None, "tool_calls": CALLS}, *RESULTS]
EVERY = [*(template.name for template in TEMPLATE_LIST), "google-gemma-2-2b-it", "microsoft-Phi-3.5-mini-instruct"]


def request(*messages: dict, **fields: object) -> ChatRequest:
    return parse_chat_request(json.dumps({"model": "m", "messages": messages or [USER]} | fields).encode())


def format_of(name: str) -> ChatFormat:
    return ChatFormat(template_of(name))


def prompt(name: str, *messages: dict, **fields: object) -> str:
    return "".join(segment.text for segment in format_of(name).prompt(request(*messages, **fields)).segments)


@pytest.mark.parametrize("name", EVERY)
def test_prompt_describes_the_tools_unless_none_may_be_called(name):
    told = prompt(name, tools=[TOOL])
    assert told.count("Adds two integers.") in (1, 2), "Functionary's says it twice"
    assert "Adds two integers." not in prompt(name, tools=[TOOL], tool_choice="none")


@pytest.mark.parametrize("name", EVERY)
def test_prompt_holds_calls_and_results_of_the_history_in_order(name):
    text = prompt(name, *HISTORY, tools=[TOOL])
    places = [text.index(part) for part in ("one and one", "result two", "result four")]
    assert places == sorted(places)
    assert text.count("add") >= 3, "the tool and both calls"
    assert "[{" not in text[places[0] :] or '"[{' not in text


@pytest.mark.parametrize("name", ["google-gemma-2-2b-it", "microsoft-Phi-3.5-mini-instruct"])
def test_template_without_tools_takes_calls_and_results_as_text(name):
    text = prompt(name, *HISTORY, {"role": "user", "content": "And?"}, tools=[TOOL])
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 1}}\n</tool_call>' in text
    assert "<tool_response>\nresult four\n</tool_response>\nAnd?" in text


@pytest.mark.parametrize("name", ["meta-llama-Llama-3.1-8B-Instruct", "openai-gpt-oss-120b"])
def test_parallel_calls_are_several_messages_if_the_template_takes_one_call(name):
    text = prompt(name, *HISTORY, tools=[TOOL])
    first, second = text.index('"a": 1'), text.index('"a": 2')
    assert first < text.index("result two") < second < text.index("result four")


def test_call_id_that_the_template_refuses_is_replaced_by_a_digest():
    text = prompt("mistralai-Mistral-Nemo-Instruct-2407", *HISTORY, tools=[TOOL])
    assert "call_abc1" not in text
    (first,) = {part[:9] for part in text.split('"call_id": "')[1:2]}
    assert f'"id": "{first}"' in text


def test_reasoning_of_the_history_reaches_the_template():
    thought = {"role": "assistant", "content": None, "tool_calls": CALLS[:1], "reasoning_content": "I must add."}
    for name in ("Qwen-Qwen3-0.6B", "openai-gpt-oss-120b", "GLM-4.6"):
        assert "I must add." in prompt(name, USER, thought, RESULTS[0], tools=[TOOL])


@pytest.mark.parametrize(
    ("name", "effort", "ending", "state"),
    [
        ("Qwen-Qwen3-0.6B", None, "<|im_start|>assistant\n", ReasoningState.FREE),
        ("Qwen-Qwen3-0.6B", "none", "<think>\n\n</think>\n\n", ReasoningState.OFF),
        ("Qwen-Qwen3-0.6B", "high", "<|im_start|>assistant\n", ReasoningState.FREE),
        ("Qwen3.5-4B", None, "<think>\n", ReasoningState.OPEN),
        ("Qwen3.5-4B", "minimal", "<think>\n\n</think>\n\n", ReasoningState.OFF),
        ("deepseek-ai-DeepSeek-V3.1", "low", "<think>", ReasoningState.OPEN),
        ("deepseek-ai-DeepSeek-V3.1", "none", "</think>", ReasoningState.OFF),
        ("microsoft-Phi-3.5-mini-instruct", "none", "<|assistant|>\n", ReasoningState.OFF),
    ],
)
def test_effort_sets_the_variables_of_the_template(name, effort, ending, state):
    made = format_of(name).prompt(request(reasoning_effort=effort))
    assert "".join(segment.text for segment in made.segments).endswith(ending)
    assert made.reasoning is state


@pytest.mark.parametrize("name", ["Qwen-Qwen3-0.6B", "deepseek-ai-DeepSeek-V3.1", "GLM-4.6"])
def test_effort_none_turns_reasoning_off_by_the_templates_switch(name):
    template = format_of(name)
    switch = next(word for word in ("enable_thinking", "thinking") if word in template_of(name).variables)
    made = template.prompt(request(chat_template_kwargs={switch: False}))
    assert made.reasoning is ReasoningState.OFF


@pytest.mark.parametrize(("effort", "said"), [("minimal", "low"), ("medium", "medium"), ("xhigh", "high")])
def test_effort_is_in_the_prompt_of_gpt_oss(effort, said):
    assert f"Reasoning: {said}" in prompt("openai-gpt-oss-120b", reasoning_effort=effort)


@pytest.mark.parametrize(
    ("name", "effort"),
    [("microsoft-Phi-3.5-mini-instruct", "low"), ("openai-gpt-oss-120b", "none"), ("MiniMax-M2", "none")],
)
def test_effort_without_variables_in_the_template_is_ignored_and_named(name, effort):
    assert format_of(name).unheard(request(reasoning_effort=effort)) == ["reasoning_effort"]
    nearest = "low" if name == "openai-gpt-oss-120b" else None
    assert prompt(name, reasoning_effort=effort) == prompt(name, reasoning_effort=nearest)


@pytest.mark.parametrize(
    ("name", "effort"),
    [
        ("microsoft-Phi-3.5-mini-instruct", "none"),
        ("openai-gpt-oss-120b", "max"),
        ("microsoft-Phi-3.5-mini-instruct", None),
    ],
)
def test_effort_with_variables_in_the_template_is_not_named(name, effort):
    assert format_of(name).unheard(request(reasoning_effort=effort)) == []


def test_notation_holds_only_control_tokens_of_the_dialect():
    controls = ("<|channel|>", "<|message|>", "<|im_start|>", "[TOOL_CALLS]", "[INST]", "<unk>")
    assert format_of("openai-gpt-oss-120b").notation(controls) == ["<|channel|>", "<|message|>"]
    assert format_of("mistralai-Mistral-Nemo-Instruct-2407").notation(controls) == ["[TOOL_CALLS]"]
    assert format_of("Qwen-Qwen2.5-7B-Instruct").notation(controls) == []


def test_reader_makes_deltas_and_a_message_of_an_answer():
    asked = request(tools=[TOOL])
    reader = format_of("Qwen-Qwen3-0.6B").reader(asked, in_reasoning=False)
    text = '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    deltas = [delta for piece in text.splitlines(keepends=True) for delta in reader.push(piece, 2)] + reader.finish()
    message = reader.message()
    assert (message.content, message.reasoning_content) == (None, "Hm.")
    assert [(made.function.name, made.function.arguments) for made in message.tool_calls] == [("add", '{"a": 1}')]
    assert reader.finish_reason == "tool_calls"
    assert reader.reasoning_tokens == 6, "three lines of two tokens"
    starts = [delta for delta in deltas if isinstance(delta, CallStart)]
    assert starts == [CallStart(0, "add")]
    assert starts[0].id == message.tool_calls[0].id
    assert starts[0].id.startswith("call_")


def test_reasoning_tokens_are_unknown_with_stop_strings_or_without_reasoning():
    reader = format_of("Qwen-Qwen3-0.6B").reader(request(stop=["x"]), in_reasoning=False)
    assert reader.reasoning_tokens is None
    assert format_of("Qwen-Qwen2.5-7B-Instruct").reader(request(), in_reasoning=False).reasoning_tokens is None


@pytest.mark.parametrize(
    ("name", "mode", "efforts"),
    [
        ("Qwen-Qwen2.5-7B-Instruct", "none", ()),
        ("microsoft-Phi-3.5-mini-instruct", "none", ()),
        ("Qwen-Qwen3-0.6B", "on", ("medium", "none")),
        ("GLM-4.6", "on", ("medium", "none")),
        ("deepseek-ai-DeepSeek-V3.1", "off", ("medium", "none")),
        ("google-gemma-4-31B-it", "off", ("medium", "none")),
        ("openai-gpt-oss-120b", "always", ("high", "medium", "low")),
        ("MiniMax-M2", "always", ()),
    ],
)
def test_reasoning_mode_is_what_the_template_writes_by_default(name, mode, efforts):
    format = format_of(name)
    assert (format.reasoning_mode, format.efforts) == (mode, efforts)


@pytest.mark.parametrize("name", EVERY)
def test_prompt_is_the_same_for_tools_in_any_order_and_for_a_tool_forced_by_name(name):
    tools = [TOOL, {"type": "function", "function": {"name": "say"}}]
    told = prompt(name, *HISTORY, tools=tools)
    assert prompt(name, *HISTORY, tools=tools[::-1]) == told
    for tool in tools:
        forced = {"type": "function", "function": {"name": tool["function"]["name"]}}
        assert prompt(name, *HISTORY, tools=tools, tool_choice=forced) == told


@pytest.mark.parametrize("name", ["Qwen-Qwen3-0.6B", "google-gemma-2-2b-it"])
def test_grammar_of_a_tool_forced_by_name_has_no_other(name):
    tools = [TOOL, {"type": "function", "function": {"name": "say"}}]
    asked = request(tools=tools, tool_choice={"type": "function", "function": {"name": "say"}})
    constraint = format_of(name).constraint(asked, ReasoningState.OFF)
    assert '"say"' in constraint.source.replace("\\", "")
    assert "add" not in constraint.source.replace("additionalProperties", "")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("tools", [{}, {"tools": [TOOL]}], ids=["plain", "tools"])
def test_prompt_of_a_continued_message_ends_in_its_content(name, tools):
    begun = {"role": "assistant", "content": "One and one is "}
    made = format_of(name).prompt(request(USER, begun, continue_final_message=True, **tools))
    text = "".join(segment.text for segment in made.segments)
    assert text.endswith("One and one is ")
    assert (text.count("One and one is "), made.reasoning) == (1, ReasoningState.CONTINUED)


def test_prompt_that_ends_in_the_tag_of_reasoning_is_inside_of_it():
    begun = {"role": "assistant", "content": "<think>"}
    made = format_of("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B").prompt(
        request(USER, begun, continue_final_message=True)
    )
    is_control = not made.segments[-1].special
    assert made.reasoning is (ReasoningState.CONTINUED if is_control else ReasoningState.OPEN)


def test_continued_answer_of_gpt_oss_is_text_until_its_call():
    asked = request(USER, {"role": "assistant", "content": "It"}, continue_final_message=True, tools=[TOOL])
    reader = format_of("openai-gpt-oss-120b").reader(asked, in_reasoning=False)
    call = "<|end|><|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>{}<|call|>"
    deltas = reader.push(f" is two.{call}", 1)
    assert deltas[0] == ContentDelta(" is two.")
    assert [delta.name for delta in deltas if isinstance(delta, CallStart)] == ["add"]


def test_prompt_without_its_generation_prompt_ends_in_the_last_message():
    assert prompt("Qwen-Qwen3-0.6B", add_generation_prompt=False).endswith("one and one?<|im_end|>\n")
