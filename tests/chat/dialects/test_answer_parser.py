"""Texts in the notations of models, in pieces of every size."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.families import FAMILIES, GENERIC
from inferd.chat.dialects.spec import ReasoningTags
from inferd.wire.answer_deltas import CallArguments, CallStart, ContentDelta, ReasoningDelta
from tests.chat.dialects.corpus import answer, read

FAMILY = {family.name: family for family in (*FAMILIES, GENERIC)}
THINKING = replace(FAMILY["hermes"], reasoning=ReasoningTags("<think>", "</think>"))
MARKERS = (
    *(
        "<tool_call>",
        "</tool_call>",
        '{"name": "add", "arguments": {"a": 1}}',
        "<t>",
        "</t>",
        "\n",
        "[TOOL_CALLS]",
        "add",
    ),
    *("[ARGS]", "<function=add>", "</function>", "<parameter=a>", "</parameter>", "1", "[", "]", ";", "{"),
)
TOOLS = {
    "add": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    "say": {"type": "object", "properties": {"text": {"type": "string"}, "more": {"anyOf": [{"type": "object"}]}}},
}


def parsed(dialect, text, *, tools=TOOLS, in_reasoning=False):
    """Return the answer, which must be the same for pieces of every size."""
    answers = [
        read(answer_parser(dialect, tools, in_reasoning=in_reasoning), text, size) for size in range(1, len(text) + 2)
    ]
    assert all(answer == answers[0] for answer in answers), "the pieces that it comes in change the answer"
    return answers[0]


@pytest.mark.parametrize(
    ("family", "text", "content", "calls"),
    [
        ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>', "", [("add", '{"a": 1}')]),
        ("hermes", '<tool_call>{"name": "add"}</tool_call>', "", [("add", "{}")]),
        ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("add", '{"a": 1}')]),
        ("hermes", 'A\n<tool_call>{"name":"add","arguments":{}}</tool_call>\n\nB', "AB", [("add", "{}")]),
        ("hermes", "a <tool_call> is a tag", "a <tool_call> is a tag", []),
        ("hermes", "a <tool_call>{not json} b", "a <tool_call>{not json} b", []),
        ("hermes", '<tool_call>{"name": "add", "argum', "", []),
        ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1', "", [("add", '{"a": 1')]),
        ("qwen-coder", "<function=add>\n<parameter=a>\n1\n</parameter>\n</function>", "", [("add", '{"a": 1}')]),
        ("qwen-coder", "<tool_call>\n<function=add>\n</function>\n</tool_call>", "", [("add", "{}")]),
        (
            "qwen-coder",
            "<tool_call><function=say><parameter=text>\n\n12\n\n</parameter><parameter=more>{'a': True}</parameter>"
            "</function></tool_call>",
            "",
            [("say", '{"text": "\\n12\\n", "more": {"a": true}}')],
        ),
        ("llama-3", '{"name": "add", "parameters": {"a": 1}}', "", [("add", '{"a": 1}')]),
        (
            "llama-3",
            '<|python_tag|>{"type": "function", "name": "add", "parameters": {}}; {"name": "say", "parameters": {}}',
            "",
            [("add", "{}"), ("say", "{}")],
        ),
        ("llama-3", '<|python_tag|>say.call(text="a) b", more={"x": [1, None]})', "", None),
        ("llama-3", "<|python_tag|>say.call(no) python)", "python)", [("say", '{"input": "no"}')]),
        ("llama-3", "<|python_tag|>say.call(a b)", "", [("say", '{"input": "a b"}')]),
        (
            "llama-3",
            '{"name": "Ada", "parameters": {"born": 1815}}',
            '{"name": "Ada", "parameters": {"born": 1815}}',
            [],
        ),
        ("llama-3", 'See: {"name": "add", "parameters": {}}', 'See: {"name": "add", "parameters": {}}', []),
        (
            "mistral-named",
            '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}, {"name": "say"}]',
            "",
            [("add", '{"a": 1}'), ("say", "{}")],
        ),
        ("mistral-array", "[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{}", "", [("add", "{}")]),
        (
            "mistral-array",
            '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]say[ARGS]{}',
            "",
            [("add", '{"a": 1}'), ("say", "{}")],
        ),
        (
            "function-gemma",
            "<start_function_call>call:say{text:<escape>a:{b},c<escape>,more:{x:[1,-2.5,true,null]}}<end_function_call>",
            "",
            [("say", '{"text": "a:{b},c", "more": {"x": [1, -2.5, true, null]}}')],
        ),
        ("deepseek-v3.1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{}", "", [("add", "{}")]),
    ],
)
def test_calls_in_the_notations_of_models_are_read(family, text, content, calls):
    answer = parsed(FAMILY[family], text)
    if calls is None:
        calls = [("say", '{"text": "a) b", "more": {"x": [1, null]}}')]
    assert (answer["content"], answer["calls"]) == (content, calls)


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "content"),
    [
        ("<think>\nWhy?\n\nSo.\n</think>\n\nIt is.", False, "Why?\n\nSo.", "It is."),
        ("Why?\n</think>\n\nIt is.\n", True, "Why?", "It is.\n"),
        ("\n<think></think>\n\nIt is.", False, "", "It is."),
        ("<think>never done", False, "never done", ""),
        ("It is <think>x</think>", False, "", "It is <think>x</think>"),
        ("  It is", False, "", "  It is"),
        ("</thin", True, "</thin", ""),
    ],
)
def test_reasoning_is_separated_from_content(text, opened, reasoning, content):
    answer = parsed(THINKING, text, in_reasoning=opened)
    assert (answer["reasoning"], answer["content"]) == (reasoning, content)


def test_reasoning_content_and_calls_in_one_answer_are_separated():
    text = '<think>\nHm.\n</think>\n\nOne.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert parsed(THINKING, text) == {"content": "One.", "reasoning": "Hm.", "calls": [("add", '{"a": 1}')]}


@pytest.mark.parametrize(
    ("text", "tools", "answer"),
    [
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
            TOOLS,
            {"content": "Yes.", "reasoning": "Hm.", "calls": []},
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.add "
            '<|constrain|>json<|message|>{"a": 1}',
            TOOLS,
            {"content": "", "reasoning": "Hm.", "calls": [("add", '{"a": 1}')]},
        ),
        (
            " to=functions.add<|channel|>commentary json<|message|>{}",
            TOOLS,
            {"content": "", "reasoning": "", "calls": [("add", "{}")]},
        ),
        (
            '<|channel|>commentary to=functions.say<|message|>{"text": "a <|end|> b"}<|end|><|start|>assistant'
            "<|channel|>final<|message|>So.",
            TOOLS,
            {"content": "So.", "reasoning": "", "calls": [("say", '{"text": "a <|end|> b"}')]},
        ),
        (
            "<|channel|>commentary<|message|>I'll look.<|end|><|start|>assistant<|channel|>fin",
            TOOLS,
            {"content": "I'll look.", "reasoning": "", "calls": []},
        ),
        (" to=functions.add<|channel|>commentary<|message|>{}", {}, {"content": "{}", "reasoning": "", "calls": []}),
        ("No channel at all.", TOOLS, {"content": "No channel at all.", "reasoning": "", "calls": []}),
    ],
)
def test_messages_on_channels_are_read(text, tools, answer):
    assert parsed(FAMILY["gpt-oss"], text, tools=tools) == answer


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "gpt-oss"])
def test_call_without_tools_is_content(name):
    text = (
        'Say <tool_call>{"name": "add", "arguments": {}}</tool_call> [TOOL_CALLS]add[ARGS]{} <|python_tag|>add.call() '
    )
    assert parsed(FAMILY[name], text, tools={}) == {"content": text, "reasoning": "", "calls": []}


@given(text=st.text(alphabet="ab {}<>[]|/\n\"':=tool_call", max_size=60), name=st.sampled_from(sorted(FAMILY)))
def test_deltas_of_any_text_do_not_depend_on_the_size_of_pieces(text, name):
    dialect = FAMILY[name] if FAMILY[name].channels else replace(FAMILY[name], reasoning=ReasoningTags("<t>", "</t>"))
    parsed(dialect, text)


@given(
    parts=st.lists(
        st.sampled_from(MARKERS),
        max_size=8,
    ),
    name=st.sampled_from(sorted(FAMILY)),
)
def test_deltas_of_markers_in_any_order_do_not_depend_on_the_size_of_pieces(parts, name):
    dialect = FAMILY[name] if FAMILY[name].channels else replace(FAMILY[name], reasoning=ReasoningTags("<t>", "</t>"))
    parsed(dialect, "".join(parts))


def test_only_a_possible_marker_is_held_back():
    parser = answer_parser(THINKING, TOOLS)
    assert parser.push("Hello <tool") == [ContentDelta("Hello")]
    assert parser.push("box> there") == [ContentDelta(" <toolbox> there")]
    assert parser.push('\n<tool_call>\n{"name": "add", ') == []
    assert parser.push('"arguments": {"a"') == [CallStart(0, "add"), CallArguments(0, '{"a"')]
    assert parser.push(": 1") == [CallArguments(0, ": 1")]
    assert parser.push("}}\n</tool_call>") == [CallArguments(0, "}")]
    assert (parser.finish(), parser.num_calls) == ([], 1)


def test_answer_in_json_that_is_no_call_is_not_held_back():
    parser = answer_parser(FAMILY["llama-3"], TOOLS)
    assert parser.push('{"') == []
    assert parser.push('city": "Paris"') == [ContentDelta('{"city": "Paris"')]
    parser = answer_parser(FAMILY["llama-3"], TOOLS)
    assert parser.push('{"name": "ad') == []
    assert parser.push('a", "born"') == [ContentDelta('{"name": "ada", "born"')]


def test_in_reasoning_follows_the_text():
    parser = answer_parser(THINKING, {}, in_reasoning=True)
    assert parser.push("Hm.") == [ReasoningDelta("Hm.")]
    assert parser.in_reasoning
    parser.push("</think>")
    assert not parser.in_reasoning


def test_arguments_are_streamed_while_they_arrive():
    arguments = json.dumps({"text": "x" * 50})
    parser = answer_parser(FAMILY["hermes"], TOOLS)
    deltas = [
        delta
        for character in f'<tool_call>{{"name":"say","arguments":{arguments}}}'
        for delta in parser.push(character)
    ]
    assert sum(isinstance(delta, CallArguments) for delta in deltas) == len(arguments)


HERMES_CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
CODER_CALL = "<tool_call>\n<function=say>\n<parameter=text>\nhi\n</parameter>\n<parameter=more>\n{}\n</parameter>\n"
DEEPSEEK_CALL = "<｜tool▁call▁begin｜>add<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
WRITTEN_CALLS = [
    ("hermes", f"{HERMES_CALL}\n{HERMES_CALL}"),
    ("hermes", '<tool_call>\n{"arguments": {"a": 1}, "name": "add"}\n</tool_call>'),
    ("qwen-coder", f"{CODER_CALL}</function>\n</tool_call>"),
    ("llama-3", '{"type": "function", "name": "add", "parameters": {"a": 1}}'),
    ("llama-3", '<|python_tag|>{"name": "add", "parameters": {}}; {"name": "say", "parameters": {}}'),
    ("mistral-named", '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}, {"name": "say"}]'),
    ("mistral-array", '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]say[ARGS]{}'),
    ("function-gemma", "<start_function_call>call:say{text:<escape>a:{b},c<escape>}<end_function_call>"),
    ("deepseek-v3.1", f"<｜tool▁calls▁begin｜>{DEEPSEEK_CALL}{DEEPSEEK_CALL}<｜tool▁calls▁end｜>"),
    ("gpt-oss", '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}<|call|>'),
]


@pytest.mark.parametrize(("family", "text"), WRITTEN_CALLS)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_markup_of_a_cut_call_is_dropped(family, text, size):
    for end in range(len(text) + 1):
        parser = answer_parser(FAMILY[family], TOOLS)
        pieces = [text[start : min(start + size, end)] for start in range(0, end, size)]
        deltas = [delta for piece in pieces for delta in parser.push(piece)] + parser.finish(was_cut=True)
        assert answer(deltas)["content"] == "", text[:end]


@pytest.mark.parametrize(
    ("family", "text", "content"),
    [
        ("hermes", "a <", "a"),
        ("hermes", "a  ", "a  "),
        ("hermes", "a <b> c", "a <b> c"),
        ("llama-3", '{"name": "Ada", "parameters": {"born', '{"name": "Ada", "parameters": {"born'),
        ("llama-3", '{"type": "report", "text": "The', '{"type": "report", "text": "The'),
        ("llama-3", '{"id": "7", "city": "Par', '{"id": "7", "city": "Par'),
    ],
)
def test_cut_content_loses_only_the_beginning_of_a_marker(family, text, content):
    parser = answer_parser(FAMILY[family], TOOLS)
    assert answer([*parser.push(text), *parser.finish(was_cut=True)])["content"] == content


def test_cut_end_tag_of_reasoning_is_dropped():
    parser = answer_parser(THINKING, TOOLS, in_reasoning=True)
    assert answer([*parser.push("Why?</thi"), *parser.finish(was_cut=True)])["reasoning"] == "Why?"
