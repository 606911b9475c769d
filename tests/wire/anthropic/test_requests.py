"""Translation of a Messages body to a chat request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.errors import InvalidRequestError
from inferd.wire.anthropic.requests import UNSUPPORTED, parse_count_tokens_request, parse_messages_request
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from inferd.wire.openai.tools import Function

SCHEMA = {"type": "object", "properties": {}}
NO = {"type": "text", "text": "no"}
HI = [{"role": "user", "content": "Hi"}]


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "o/d", "max_tokens": 9, "messages": HI, **fields}
    return parse_messages_request(json.dumps(body).encode())[0]


def searched(*messages: dict[str, Any], choice: dict[str, Any] | None = None) -> ChatRequest:
    tools = [
        {"name": "zoom", "input_schema": SCHEMA},
        {"name": "fetch", "description": "Gets.", "input_schema": SCHEMA, "defer_loading": True},
        {"name": "list", "input_schema": SCHEMA, "defer_loading": True},
        {"name": "find", "input_schema": SCHEMA},
    ]
    return chat(tools=tools, messages=[*HI, *messages], tool_choice=choice or {"type": "auto"})


FOUND = (
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "find", "input": {}}]},
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "fetch"}]}
        ],
    },
)


def names(functions: tuple[Function, ...]) -> list[str]:
    return [function.name for function in functions]


def test_deferred_tool_is_neither_told_of_nor_callable():
    tools = searched().tool_set
    assert (names(tools.functions), names(tools.allowed)) == (["find", "zoom"], ["find", "zoom"])


def test_deferred_tool_that_a_result_refers_to_is_told_there_and_callable():
    asked = searched(*FOUND)
    tools = asked.tool_set
    assert names(tools.functions) == ["find", "zoom"], "the front of the prompt stays the same"
    assert names(tools.allowed) == ["fetch", "find", "zoom"]
    result = asked.messages[-1].text()
    assert json.loads(result.removeprefix("<function>").removesuffix("</function>")) == {
        "name": "fetch",
        "description": "Gets.",
        "parameters": SCHEMA,
    }


def test_deferred_tool_chosen_by_name_is_callable():
    assert names(searched(choice={"type": "tool", "name": "list"}).tool_set.allowed) == ["list"]


def test_tools_that_are_all_deferred_are_told_at_once():
    tools = chat(tools=[{"name": "f", "input_schema": SCHEMA, "defer_loading": True}]).tool_set
    assert names(tools.functions) == names(tools.allowed) == ["f"]


def written(*turns: tuple[str, str], **fields: Any) -> list[tuple[str, str]]:
    messages = [{"role": role, "content": content} for role, content in turns]
    return [(message.role, message.text()) for message in chat(messages=messages, **fields).messages]


def test_system_turns_before_the_first_of_the_assistant_go_to_the_front():
    asked = written(("user", "Hi"), ("system", "Env."), ("user", "Go"), ("system", "Date."), system="Be brief.")
    assert asked == [("system", "Be brief."), ("system", "Env."), ("system", "Date."), ("user", "Hi\nGo")]


def test_system_turns_behind_the_assistant_stay_in_their_place():
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Go"), ("system", "Later."), ("user", "on")]
    assert written(*turns) == turns


def test_fault_in_a_system_turn_that_moved_names_the_place_where_it_was_sent():
    body = {
        "model": "o/d",
        "max_tokens": 9,
        "messages": [*HI, {"role": "system", "content": [{"type": "image"}]}],
    }
    ignored = IgnoredFields()
    parse_messages_request(json.dumps(body).encode(), ignored)
    assert ignored.header_value() == "messages[1].content[0]"


def test_every_field_is_translated():
    asked = chat(
        system="Be brief.",
        stream=True,
        stop_sequences=["a", "b"],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        metadata={"user_id": "u"},
        service_tier="standard_only",
        tools=[{"name": "f", "description": "F.", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 5000},
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
    )
    body = {
        "model": "o/d",
        "messages": [{"role": "system", "content": "Be brief."}, *HI],
        "max_tokens": 9,
        "stream": True,
        "stop": ["a", "b"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "user": "u",
        "service_tier": "default",
        "tools": [{"type": "function", "function": {"name": "f", "description": "F.", "parameters": SCHEMA}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "medium",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": SCHEMA, "strict": True},
        },
    }
    assert asked == parse_chat_request(json.dumps(body).encode())


def test_blocks_become_messages():
    turns = [
        {"role": "user", "content": "7?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "Well."},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "content": [{"type": "text", "text": "no"}],
                    "is_error": True,
                },
                {"type": "text", "text": "So?"},
            ],
        },
        {"role": "user", "content": "And?"},
    ]
    user, turn, result, last = chat(messages=turns).messages
    assert user.text() == "7?"
    assert (turn.reasoning_content, turn.text()) == ("Hm.", "Well.")
    assert [(call.id, call.arguments()) for call in turn.tool_calls] == [("a", {"x": 1})]
    assert (result.role, result.tool_call_id, result.text()) == ("tool", "a", "Error: no")
    assert (last.role, last.text()) == ("user", "So?\nAnd?")


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_unsupported_value_is_refused_by_name(field):
    with pytest.raises(InvalidRequestError) as raised:
        chat(**{field: "y"})
    assert (raised.value.param, raised.value.code) == (field, "unsupported_parameter")


AFTER_TOOL = [
    *HI,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "1"}]},
]


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "between_tools"}}, "none"),
        ({"thinking": {"type": "between_tools"}, "messages": AFTER_TOOL}, None),
        ({"thinking": {"type": "between_tools"}, "messages": AFTER_TOOL, "output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 20_000}}, "high"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max"),
        ({"output_config": {"effort": "minimal"}}, "minimal"),
        ({"output_config": {"effort": "ultra"}}, None),
        ({"thinking": {"type": "sometimes"}}, None),
    ],
)
def test_thinking_sets_the_effort(fields, effort):
    assert chat(**fields).effort == effort


def test_last_turn_of_the_assistant_is_continued():
    begun = {"role": "assistant", "content": "The answer is ("}
    assert chat(messages=[*HI, begun]).continues
    assert not chat(messages=HI).continues
    refused = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    with pytest.raises(InvalidRequestError, match=r"'messages\[1\]' begins the answer") as caught:
        chat(messages=[*HI, begun], **refused)
    assert caught.value.param == "output_config.format.schema"


@pytest.mark.parametrize("content", ["", [], [{"type": "thinking", "thinking": "Hm.", "signature": ""}]])
def test_last_turn_of_the_assistant_without_text_is_left_out_and_named(content):
    asked = chat(messages=[*HI, {"role": "assistant", "content": content}])
    assert asked == chat(messages=HI)
    assert ignored_of(messages=[*HI, {"role": "assistant", "content": content}]) == "messages[1]"


def test_count_tokens_reads_prompt_fields_and_ignores_the_rest():
    body = {"model": "o/d", "messages": HI, "system": "Be brief."}
    counted, _ = parse_count_tokens_request(json.dumps(body).encode())
    assert counted.messages == chat(system="Be brief.").messages
    ignored = IgnoredFields()
    parse_count_tokens_request(json.dumps(body | {"max_tokens": 9}).encode(), ignored)
    assert ignored.header_value() == "max_tokens"


def ignored_of(**fields: Any) -> str:
    ignored = IgnoredFields()
    body = {"model": "o/d", "max_tokens": 9, "messages": HI, **fields}
    parse_messages_request(json.dumps(body).encode(), ignored)
    return ignored.header_value()


EPHEMERAL = {"type": "ephemeral", "ttl": "1h"}
OWN_TOOL = {"name": "f", "input_schema": SCHEMA}
SERVER_TOOL = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
FORCED = {"type": "tool", "name": "web_search"}
"""Claude Code forces its web search so."""


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"context_management": {"edits": []}, "mcp_servers": []}, "context_management, mcp_servers"),
        ({"system": [NO | {"cache_control": EPHEMERAL}]}, ""),
        ({"system": [NO | {"cache_control": EPHEMERAL | {"scope": "global"}}]}, "system[0].cache_control.scope"),
        ({"speed": "fast", "thinking": {"type": "adaptive", "display": "omitted"}}, "speed, thinking.display"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, "output_config.effort"),
        (
            {"thinking": {"type": "sometimes"}, "output_config": {"effort": "ultra"}},
            "thinking.type, output_config.effort",
        ),
        ({"tools": [OWN_TOOL | {"defer_loading": True}]}, ""),
        (
            {"tools": [OWN_TOOL | {"defer_loading": True}, {"type": "tool_search_tool_regex_20251119", "name": "s"}]},
            "tools[0].defer_loading, tools[1]",
        ),
        ({"tools": [SERVER_TOOL], "tool_choice": {"type": "any"}}, "tools[0].max_uses, tools[0], tool_choice"),
        ({"tools": [OWN_TOOL, SERVER_TOOL], "tool_choice": FORCED}, "tools[1].max_uses, tools[1], tool_choice"),
        ({"tools": [OWN_TOOL, SERVER_TOOL]}, "tools[1].max_uses, tools[1]"),
    ],
)
def test_advisory_field_is_ignored_and_named(fields, ignored):
    assert ignored_of(**fields) == ignored


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (
            {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
            "[image omitted: this model reads text only]",
        ),
        ({"type": "document", "source": {"type": "base64"}}, "[document omitted: this model reads text only]"),
        ({"type": "document", "source": {"type": "text", "data": "Dear Ann"}}, "Dear Ann"),
        ({"type": "search_result", "title": "t", "source": "u", "content": [NO]}, "no"),
        ({"type": "tool_reference", "tool_name": "Read"}, "[tool: Read]"),
    ],
)
@pytest.mark.parametrize("place", ["user", "tool_result"])
def test_block_that_is_not_text_becomes_text(block, text, place):
    turns = [{"role": "user", "content": [block]}]
    path = "messages[0].content[0]"
    if place == "tool_result":
        call = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
        turns = [
            *HI,
            call,
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [block]}]},
        ]
        path = "messages[2].content[0].content[0]"
    assert chat(messages=turns).messages[-1].text() == text
    assert ignored_of(messages=turns) == path


@pytest.mark.parametrize(
    ("blocks", "ignored"),
    [
        ([], ""),
        ([NO | {"citations": [{"type": "char_location"}]}], "messages[1].content[0].citations"),
        ([NO | {"citations": None, "parsed_output": 1}], "messages[1].content[0].parsed_output"),
        ([NO, {"type": "redacted_thinking", "data": "x"}], "messages[1].content[1]"),
        ([NO, {"type": "server_tool_use", "id": "s", "name": "w", "input": {}}], "messages[1].content[1]"),
    ],
)
def test_answer_of_another_server_is_taken_back(blocks, ignored):
    turns = [*HI, {"role": "assistant", "content": blocks}, *HI]
    assert ignored_of(messages=turns) == ignored
    assert [message.text() for message in chat(messages=turns).messages] == ["Hi", "no" if blocks else "", "Hi"]


@pytest.mark.parametrize(("input", "arguments"), [({"a": 1}, {"a": 1}), (None, {}), ('{"a": "b', {"a": "b"}), ([], {})])
def test_input_of_a_call_of_any_shape_is_taken_back(input, arguments):
    call = {"type": "tool_use", "id": "a", "name": "f", "input": input}
    result = {"type": "tool_result", "tool_use_id": "a"}
    turns = [*HI, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    (called,) = chat(messages=turns).messages[1].tool_calls or ()
    assert called.arguments() == arguments


def test_older_field_of_the_output_format_is_honoured():
    format = {"type": "json_schema", "schema": SCHEMA}
    assert chat(output_format=format).constraint == chat(output_config={"format": format}).constraint
