"""Translation of a Responses body to a chat request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.errors import InvalidRequestError
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from inferd.wire.openai.responses.requests import UNSUPPORTED, ResponsesRequest, parse_responses_request


def chat(**fields: Any) -> ChatRequest:
    return parse_responses_request(json.dumps({"model": "o/d", **fields}).encode())[1]


def same_chat(**fields: Any) -> ChatRequest:
    return parse_chat_request(json.dumps({"model": "o/d", **fields}).encode())


SCHEMA = {"type": "object", "properties": {}}


def test_every_field_is_translated():
    asked = chat(
        input="Why?",
        instructions="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}},
        tools=[{"type": "function", "name": "f", "description": "F.", "parameters": SCHEMA, "strict": True}],
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
        parallel_tool_calls=False,
        user="u",
        metadata={"a": "b"},
        service_tier="flex",
        prompt_cache_key="k",
        safety_identifier="s",
        stream=True,
    )
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}
    function = {"name": "f", "description": "F.", "parameters": SCHEMA, "strict": True}
    expected = same_chat(
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        max_completion_tokens=9,
        temperature=0.5,
        top_p=0.9,
        logprobs=True,
        top_logprobs=2,
        reasoning_effort="low",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
        },
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
        parallel_tool_calls=False,
        user="u",
        metadata={"a": "b"},
        service_tier="flex",
        prompt_cache_key="k",
        safety_identifier="s",
        stream=True,
    )
    assert asked == expected


def test_assistant_items_in_a_row_are_one_message():
    items = [
        {"role": "user", "content": "7?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Well."}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        {"role": "assistant", "content": "Done."},
        {"role": "assistant", "content": "Really."},
        {"role": "user", "content": [{"type": "input_text", "text": "Sure?"}]},
    ]
    user, turn, first, second, done, really, last = chat(input=items).messages
    assert (user.role, last.text()) == ("user", "Sure?")
    assert (turn.reasoning_content, turn.text(), [call.id for call in turn.tool_calls]) == ("Hm.", "Well.", ["a", "b"])
    assert [(result.tool_call_id, result.text()) for result in (first, second)] == [("a", "1"), ("b", "2")]
    assert (done.text(), really.text()) == ("Done.", "Really.")


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_unsupported_value_is_refused_by_name(field):
    with pytest.raises(InvalidRequestError) as raised:
        chat(input="x", **{field: "y"})
    assert (raised.value.param, raised.value.code) == (field, "unsupported_parameter")
    assert field in ResponsesRequest.__struct_fields__


def test_tool_choice_none_without_tools_has_no_effect():
    assert not chat(input="x", tool_choice="auto", parallel_tool_calls=True, tools=[]).tool_set.functions
    with pytest.raises(InvalidRequestError, match="tools"):
        chat(input="x", tool_choice="required")


def ignored_of(**fields: Any) -> str:
    ignored = IgnoredFields()
    parse_responses_request(json.dumps({"model": "o/d", "input": "x", **fields}).encode(), ignored)
    return ignored.header_value()


FUNCTION = {"type": "function", "name": "f", "parameters": SCHEMA}
SEARCH = {"type": "web_search"}


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"store": True, "truncation": "auto"}, "store, truncation"),
        ({"store": False, "truncation": "disabled", "background": False}, ""),
        ({"client_metadata": {"a": "b"}}, "client_metadata"),
        ({"text": {"verbosity": "low"}, "include": ["web_search_call.results"]}, "include[0], text.verbosity"),
        ({"reasoning": {"summary": "detailed", "context": "all"}}, "reasoning.summary, reasoning.context"),
        ({"context_management": [], "max_tool_calls": 3}, "context_management, max_tool_calls"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"metadata": {"a": 1}}, "metadata"),
        (
            {"tools": [FUNCTION, {"type": "web_search"}, {"type": "namespace", "name": "n"}]},
            "tools[2], tools[1]",
        ),
        ({"tools": [FUNCTION | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"reasoning": {"effort": "ultra"}, "previous_response_id": ""}, "reasoning.effort"),
        ({"tools": [SEARCH], "tool_choice": "required"}, "tools[0], tool_choice"),
        ({"tools": [FUNCTION, SEARCH], "tool_choice": SEARCH}, "tools[1], tool_choice"),
        (
            {"tools": [FUNCTION, SEARCH], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [SEARCH]}},
            "tools[1], tool_choice.tools[0]",
        ),
    ],
)
def test_advisory_field_is_ignored_and_named(fields, ignored):
    assert ignored_of(**fields) == ignored


@pytest.mark.parametrize(
    ("item", "ignored"),
    [
        ({"type": "web_search_call", "id": "w", "status": "completed", "action": {}}, "input[0].action, input[0]"),
        (
            {"role": "assistant", "content": [{"type": "output_text", "text": "a", "parsed": 1}]},
            "input[0].content[0].parsed",
        ),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "[]"}, "input[0].arguments"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": "b', "status": "incomplete"}, ""),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n"}, ""),
        ({"role": "user", "content": "x", "namespace": "n"}, "input[0].namespace"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "x"}, "input[0].encrypted_content"),
        ({"role": "assistant", "content": []}, ""),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, ""),
    ],
)
def test_item_of_another_server_or_an_sdk_helper_is_taken_back(item, ignored):
    items = [item, {"role": "user", "content": "x"}]
    if item.get("type") == "function_call":
        items.insert(1, {"type": "function_call_output", "call_id": "c", "output": []})
    assert ignored_of(input=items) == ignored


@pytest.mark.parametrize("place", ["message", "output"])
def test_image_becomes_a_text_that_says_so(place):
    parts = [{"type": "input_text", "text": "See"}, {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]
    if place == "message":
        items = [{"role": "user", "content": parts}]
    else:
        call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
        items = [call, {"type": "function_call_output", "call_id": "c", "output": parts}]
    assert chat(input=items).messages[-1].text() == "See\n[image omitted: this model reads text only]"
    path = "input[0].content[1]" if place == "message" else "input[1].output[1]"
    assert ignored_of(input=items) == path


def test_lone_surrogate_in_arguments_is_replaced():
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":"\\ud83d"}'}
    messages = chat(input=[call, {"type": "function_call_output", "call_id": "c", "output": "r"}]).messages
    assert messages[0].tool_calls[0].arguments() == {"a": "\ufffd"}


def namespace(name: str, *tools: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "tools": list(tools), **fields}


def test_namespace_becomes_its_functions_with_its_name_and_description():
    listing = {"type": "function", "name": "list", "description": "Lists.", "parameters": SCHEMA, "strict": True}
    asked = chat(input="x", tools=[namespace("crm", listing, {"type": "function", "name": "get"}, description="CRM.")])
    first = {"name": "crm__list", "description": "CRM.\n\nLists.", "parameters": SCHEMA, "strict": True}
    tools = [{"type": "function", "function": function} for function in (first, {"name": "crm__get"})]
    assert asked.tools == same_chat(messages=[{"role": "user", "content": "x"}], tools=tools).tools


def test_call_of_a_namespace_in_the_input_has_the_name_that_the_model_knows():
    call = {"type": "function_call", "call_id": "c", "namespace": "mcp__a__", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "1"}
    messages = chat(input=[call, result, {"role": "user", "content": "x"}]).messages
    assert messages[0].tool_calls[0].function.name == "mcp__a__f"


@pytest.mark.parametrize(
    ("tools", "ignored"),
    [
        ([namespace("n", {"type": "custom", "name": "f"}, FUNCTION)], "tools[0].tools[0]"),
        ([FUNCTION, namespace("n", FUNCTION | {"name": "f" * 62})], "tools[1].tools[0]"),
        (
            [namespace("n", *(FUNCTION | {"name": f"f{number}"} for number in range(130)))],
            "tools[0].tools[128], tools[0].tools[129]",
        ),
        ([namespace("n")], "tools[0]"),
    ],
)
def test_function_of_a_namespace_that_cannot_be_called_is_left_out_and_named(tools, ignored):
    assert ignored_of(tools=tools) == ignored


def test_fault_in_a_function_of_a_namespace_names_its_place():
    wrong = FUNCTION | {"parameters": {"type": "array"}}
    with pytest.raises(InvalidRequestError) as caught:
        chat(input="x", tools=[FUNCTION, namespace("n", FUNCTION, wrong | {"name": "g"})])
    assert caught.value.param == "tools[1].tools[1].parameters"
