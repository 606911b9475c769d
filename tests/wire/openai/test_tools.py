"""`tools`, `tool_choice`, `parallel_tool_calls` and the calls of a conversation: honoured or refused by path."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import InvalidRequestError
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from inferd.wire.openai.tool_calls import read_arguments

USER = {"role": "user", "content": "hi"}
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}


def function(name: str, **more: object) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS, **more}}


TOOLS = [function("add", description="Adds."), function("say")]


CUSTOM = {"type": "custom"}
"""A tool of a type that is left out."""


def parse(**fields: object) -> ChatRequest:
    return parse_chat_request(json.dumps({"model": "m", "messages": [USER]} | fields).encode())


def refused(**fields: object) -> str | None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    assert caught.value.code, "every refusal has a code"
    return caught.value.param


def named(name: str) -> dict:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str, left_out: tuple[dict, ...] = ()) -> dict:
    tools = [*left_out, *(named(name) for name in names)]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize(
    ("choice", "names", "required"),
    [
        (None, ["add", "say"], False),
        ("auto", ["add", "say"], False),
        ("required", ["add", "say"], True),
        ("none", [], False),
        (named("say"), ["say"], True),
        (allowed("auto", "say"), ["say"], False),
        (allowed("required", "say", "add"), ["add", "say"], True),
    ],
)
def test_tool_choice_decides_the_allowed_and_required_functions(choice, names, required):
    tools = parse(tools=TOOLS, tool_choice=choice).tool_set
    assert ([function.name for function in tools.allowed], tools.required) == (names, required)
    assert list(tools.schemas) == names


@pytest.mark.parametrize("choice", [named("say"), allowed("auto", "say"), allowed("required", "add")])
@pytest.mark.parametrize("parallel", [None, False])
def test_model_is_told_the_same_whatever_tool_the_choice_names(choice, parallel):
    told = parse(tools=TOOLS, parallel_tool_calls=parallel).tool_set
    named_one = parse(tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel).tool_set
    assert named_one.template_tools() == told.template_tools()
    assert named_one.tells_parallel == told.tells_parallel == (parallel is None)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_model_is_told_of_tools_by_name_and_of_those_of_mcp_servers_last(order):
    tools = [function(name) for name in ("mcp__git__log", "read", "Bash", "write")]
    told = parse(tools=[tools[place] for place in order]).tool_set.functions
    assert [each.name for each in told] == ["Bash", "read", "write", "mcp__git__log"]


def test_keys_of_a_schema_keep_the_callers_order():
    properties = {"z": {"type": "string"}, "a": {"type": "string", "description": "last"}}
    schema = {"properties": properties, "type": "object"}
    (told,) = parse(tools=[function("f", parameters=schema)]).tool_set.template_tools()
    assert json.dumps(told["function"]["parameters"]) == json.dumps(schema)


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [("auto", None, True), ("required", True, True), ("auto", False, False), (named("add"), None, False)],
)
def test_named_function_is_called_once_and_others_in_parallel(choice, parallel, expected):
    assert parse(tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel).tool_set.parallel is expected


def test_template_tools_hold_every_field():
    (first, second) = parse(tools=[TOOLS[0], named("bare")]).tool_set.template_tools()
    assert first == {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": PARAMETERS}}
    assert second["function"] == {"name": "bare", "description": "", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [function("a b")]}, "tools[0].function.name"),
        ({"tools": [function("x" * 65)]}, "tools[0].function.name"),
        ({"tools": [function("add"), function("add")]}, "tools[1].function.name"),
        ({"tools": [function("add", parameters={"type": "array"})]}, "tools[0].function.parameters"),
        ({"tools": [function("add", parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [function("add", paramters={})]}, "tools[0].function.paramters"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [function(f"f{number}") for number in range(129)]}, "tools"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": named("other")}, "tool_choice.function.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice.type"),
        ({"tools": TOOLS, "tool_choice": allowed("auto", "other")}, "tool_choice.allowed_tools.tools"),
        ({"tools": TOOLS, "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
        ({"tools": TOOLS, "tool_choice": allowed("never", "add")}, "tool_choice.allowed_tools.mode"),
        ({"functions": [{"name": "add"}]}, "functions"),
        ({"functions": [{"name": "add"}], "function_call": "auto"}, "function_call"),
    ],
)
def test_invalid_tool_or_choice_is_refused_by_its_path(fields, param):
    assert refused(**fields) == param


def call(call_id: str = "c1", arguments: str = '{"a": 1}', name: str = "add", **more: object) -> dict:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}} | more


def calling(*calls: dict, **more: object) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)} | more


def result(call_id: str | None = "c1", **more: object) -> dict:
    return {"role": "tool", "tool_call_id": call_id, "content": "2"} | more


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([result()], "messages[1].tool_call_id"),
        ([calling(call()), result("c2")], "messages[2].tool_call_id"),
        ([calling(call()), result(), result()], "messages[3].tool_call_id"),
        ([calling(call()), result(None)], "messages[2].tool_call_id"),
        ([calling(call())], "messages[1].tool_calls[0]"),
        ([calling(call(), call("c2")), result(), USER], "messages[1].tool_calls[1]"),
        ([calling(call(), call()), result()], "messages[1].tool_calls[1].id"),
        ([calling(call(name="a b")), result()], "messages[1].tool_calls[0].function.name"),
        ([calling(call(""), content="x")], "messages[1].tool_calls[0].id"),
        ([calling(call(type="custom")), result()], "messages[1].tool_calls[0].type"),
        ([calling({"id": "c1"}), result()], "messages[1].tool_calls[0].function"),
        ([USER | {"tool_calls": [call()]}], "messages[1].tool_calls"),
        ([USER | {"tool_call_id": "c1"}], "messages[1].tool_call_id"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[1].role"),
    ],
)
def test_malformed_call_history_is_refused_by_its_path(messages, param):
    assert refused(messages=[USER, *messages]) == param


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"tools": [], "tool_choice": "auto"}, ""),
        ({"tool_choice": "none"}, ""),
        ({"function_call": "none", "functions": []}, ""),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}], "tool_choice": "auto"}, "tools[0].custom, tools[0]"),
        ({"tools": [*TOOLS, {"type": "web_search"}]}, "tools[2]"),
        (
            {"tools": [function("add", wisdom=True) | {"cache_control": {}}]},
            "tools[0].cache_control, tools[0].function.wisdom",
        ),
        ({"tools": [CUSTOM], "tool_choice": "required"}, "tools[0], tool_choice"),
        ({"tools": [*TOOLS, CUSTOM], "tool_choice": CUSTOM}, "tools[2], tool_choice"),
        ({"tools": [*TOOLS, CUSTOM], "tool_choice": "required"}, "tools[2]"),
        ({"reasoning_effort": "ultra"}, "reasoning_effort"),
        ({"reasoning_effort": ""}, ""),
    ],
)
def test_tools_of_other_types_are_left_out_and_named(fields, ignored):
    record = IgnoredFields()
    request = parse_chat_request(json.dumps({"model": "m", "messages": [USER]} | fields).encode(), record)
    assert record.header_value() == ignored
    assert all(name in ("add", "say") for name in request.tool_set.schemas)


@pytest.mark.parametrize(
    ("tools", "choice", "names"),
    [
        ([CUSTOM], "required", []),
        ([*TOOLS, CUSTOM], CUSTOM, []),
        ([*TOOLS, CUSTOM], "required", ["add", "say"]),
        ([*TOOLS, CUSTOM], allowed("required", left_out=(CUSTOM,)), []),
        ([*TOOLS, CUSTOM], allowed("required", "say", left_out=(CUSTOM,)), ["say"]),
    ],
)
def test_choice_of_a_tool_that_is_left_out_allows_no_other(tools, choice, names):
    chosen = parse(tools=tools, tool_choice=choice).tool_set
    assert [function.name for function in chosen.allowed] == names
    assert chosen.required is bool(names)


@pytest.mark.parametrize(
    ("choice", "required"),
    [("any", True), ({"type": "any"}, True), ({"type": "required"}, True), ({"type": "auto"}, False)],
)
def test_choice_in_the_words_of_another_api_is_honoured(choice, required):
    assert parse(tools=TOOLS, tool_choice=choice).tool_set.required is required


ARGUMENTS = {
    "": {},
    " ": {},
    '{"path": "a': {"path": "a"},
    '{"path":': {},
    '{"a": 1, "b': {"a": 1},
    '{"a": [1, {"b": 2': {"a": [1, {"b": 2}]},
    '{"a": "b\\u00': {"a": "b"},
    '{"a": "b\\': {"a": "b"},
    '{"a":1}{"b":2}': {"a": 1},
    '{"a":1} and so on': {"a": 1},
    "{'path': 'a', 'all': True}": {"path": "a", "all": True},
    '"{\\"a\\": 1}"': {"a": 1},
    '{"a":"\\ud83d"}': {"a": "\ufffd"},
    '{"\\udc00":1}': {"\ufffd": 1},
    '{"a":"\\ud83d\\ude00"}': {"a": "\U0001f600"},
}
"""Arguments of calls as models and limits leave them -> the object that a template gets."""


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments_of_a_servers_answer_are_read(arguments):
    record = IgnoredFields(strict=True)
    body = {"model": "m", "messages": [USER, calling(call(arguments=arguments)), result(content=None)]}
    request = parse_chat_request(json.dumps(body).encode(), record)
    assert request.messages[1].tool_calls[0].arguments() == ARGUMENTS[arguments]


@pytest.mark.parametrize("arguments", ["null", "[]", "[1]", "3", "x", "NaN", "[" * 100_000, '{"a":' * 100_000])
def test_arguments_without_an_object_are_empty_and_named(arguments):
    record = IgnoredFields()
    body = {"model": "m", "messages": [USER, calling(call(arguments=arguments)), result(content=[])]}
    request = parse_chat_request(json.dumps(body).encode(), record)
    assert request.messages[1].tool_calls[0].arguments() == {}
    assert record.header_value() == "messages[1].tool_calls[0].function.arguments"


NESTED = st.recursive(st.text(max_size=5) | st.integers() | st.none(), st.lists, max_leaves=6)


@given(st.dictionaries(st.text(max_size=4), NESTED, max_size=3))
def test_every_beginning_of_arguments_is_read(value):
    text = json.dumps(value)
    assert read_arguments(text) == value
    for end in range(1, len(text)):
        assert isinstance(read_arguments(text[:end]), dict)


def test_call_history_of_an_answer_is_taken_back():
    request = parse(
        messages=[
            USER,
            calling(call(), call("c2", arguments=""), reasoning_content="Hm.", refusal=None, annotations=[]),
            result("c2", content=[{"type": "text", "text": "ok"}]),
            result(),
            {"role": "assistant", "content": "2"},
        ]
    )
    assert [called.arguments() for called in request.messages[1].tool_calls or ()] == [{"a": 1}, {}]
