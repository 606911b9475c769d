"""Bodies of Ollama's chats and completions, as chat requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.errors import InvalidRequestError
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.ollama.requests import OllamaAsk, parse_ollama_chat, parse_ollama_generate

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
CALL = {"function": {"name": "add", "arguments": {"a": 1}}}
BEGUN = {"role": "assistant", "content": "The answer"}


def chat(ignored: IgnoredFields | None = None, **fields: Any) -> OllamaAsk:
    return parse_ollama_chat(json.dumps({"model": "m", "messages": HI, **fields}).encode(), ignored)


def generate(ignored: IgnoredFields | None = None, **fields: Any) -> OllamaAsk:
    return parse_ollama_generate(json.dumps({"model": "m", "prompt": "hi", **fields}).encode(), ignored)


def messages(*given: dict[str, Any]) -> tuple[list[tuple[str, str, str | None]], str]:
    """Return role, text and id of the answered call of each message, and the paths that are named as ignored."""
    ignored = IgnoredFields()
    asked = chat(ignored, messages=given).chat.messages
    return [(each.role, each.text(), each.tool_call_id) for each in asked], ignored.header_value()


def refusal(fields: dict[str, Any], parse: Any = chat) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    return caught.value


def test_chat_streams_unless_told_not_to():
    assert [chat(**fields).chat.streamed for fields in ({}, {"stream": None}, {"stream": False})] == [True, True, False]


def test_sampling_without_options_has_ollamas_defaults():
    params = chat().chat.sampling_params()
    assert (params.temperature, params.top_k, params.top_p) == (0.8, 40, 0.9)
    assert (params.min_p, params.repeat_penalty, params.seed) == (0.0, 1.0, None)


def test_options_are_sampling_and_limits():
    options = {
        "num_predict": 7,
        "temperature": 0,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.1,
        "typical_p": 0.9,
        "seed": 3,
        "stop": ["x"],
        "repeat_penalty": 1.1,
        "repeat_last_n": 8,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
    }
    ignored = IgnoredFields()
    asked = chat(ignored, options=options).chat
    params = asked.sampling_params()
    assert asked.completion_limit == 7
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.0, 5, 0.5, 0.1)
    assert (params.typical_p, params.seed, params.stop) == (0.9, 3, ("x",))
    assert (params.repeat_penalty, params.presence_penalty, params.frequency_penalty) == (1.1, 0.5, 0.25)
    assert params.repeat_last_n == 8
    assert ignored.header_value() == ""


def test_options_of_loading_and_of_other_samplers_are_named():
    ignored = IgnoredFields()
    chat(ignored, options={"num_ctx": 4096, "mirostat": 1, "repeat_last_n": 9, "some_option": 1}, keep_alive="5m")
    assert set(ignored.header_value().split(", ")) == {
        "options.some_option",
        "keep_alive",
        "options.num_ctx",
        "options.mirostat",
        "options.repeat_last_n",
    }


@pytest.mark.parametrize("num_predict", [-1, -2, 0])
def test_negative_limit_is_none_and_named(num_predict):
    ignored = IgnoredFields()
    assert chat(ignored, options={"num_predict": num_predict}).chat.completion_limit is None
    assert ignored.header_value() == "options.num_predict"


@pytest.mark.parametrize(
    ("option", "given", "taken", "is_named"),
    [
        ("temperature", 3, 2, True),
        ("temperature", -1, 0, True),
        ("presence_penalty", -5, -2, True),
        ("frequency_penalty", 2.5, 2, True),
        ("repeat_penalty", 0, 0.01, True),
        ("top_p", 1.5, 1, False),
        ("top_p", -1, 0, False),
        ("min_p", 2, 1, False),
        ("typical_p", 7, 1, False),
        ("top_k", -5, -1, False),
    ],
)
def test_option_out_of_range_is_the_nearest_and_named_if_that_differs(option, given, taken, is_named):
    ignored = IgnoredFields()
    assert getattr(chat(ignored, options={option: given}).chat, option) == taken
    assert ignored.header_value() == (f"options.{option}" if is_named else "")


def test_last_message_of_the_assistant_is_continued_if_it_has_text():
    assert chat(messages=[*HI, BEGUN]).chat.continues
    assert not chat(messages=HI).chat.continues
    assert not chat(messages=[*HI, {"role": "assistant", "content": "", "thinking": "Hm."}]).chat.continues


def test_negative_seed_is_random():
    assert chat(options={"seed": -1}).chat.sampling_params().seed is None


@pytest.mark.parametrize(
    ("think", "effort"), [(None, None), (True, "medium"), (False, "none"), ("low", "low"), ("max", "max"), ("", None)]
)
def test_think_is_an_effort(think, effort):
    assert chat(think=think).chat.effort == effort


def test_format_is_json_or_a_schema_that_is_enforced_as_far_as_possible():
    assert chat(format=None).chat.constraint is None
    assert chat(format="").chat.constraint is None
    constraint = chat(format="json").chat.constraint
    assert constraint is not None
    assert constraint.source == '{"type":"object"}'
    schema = chat(format={"type": "object", "properties": {"a": {"type": "integer"}}}).chat.constraint
    assert schema is not None
    assert json.loads(schema.source)["properties"] == {"a": {"type": "integer"}}
    assert schema.kind is constraint.kind


def test_tools_are_functions_also_without_a_type():
    untyped = {"function": TOOL["function"] | {"name": "sub"}}
    (add, sub) = chat(tools=[TOOL, untyped]).chat.tool_set.functions
    assert (add.name, add.description, sub.name) == ("add", "Adds.", "sub")


@pytest.mark.parametrize(
    ("result", "answered"),
    [
        ({"tool_call_id": "b"}, "b"),
        ({"tool_name": "sub"}, "b"),
        ({"name": "sub"}, "b"),
        ({}, "a"),
        ({"tool_call_id": "unknown", "tool_name": "unknown"}, "a"),
    ],
)
def test_result_answers_the_call_of_its_id_or_tool_or_the_first(result, answered):
    calls = [{"id": "a", **CALL}, {"id": "b", "function": {"name": "sub", "arguments": {}}}]
    rest = ({"role": "tool", "content": "2"}, {"role": "user", "content": "so?"})
    sent, ignored = messages(
        *HI, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "content": "1"} | result, *rest
    )
    other = "a" if answered == "b" else "b"
    assert sent[2:] == [("tool", "1", answered), ("tool", "2", other), ("user", "so?", None)]
    assert ignored == ""


def test_call_without_an_id_has_one_by_its_place():
    call = {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
    results = [{"role": "tool", "content": "1", "tool_name": "add"}, {"role": "tool", "content": "2"}]
    sent, ignored = messages(*HI, call, *results)
    assert [call_id for _, _, call_id in sent[2:]] == ["call_1_0", "call_1_1"]
    assert ignored == ""


def test_call_without_a_result_gets_an_empty_one_and_is_named():
    call = {"role": "assistant", "tool_calls": [CALL]}
    sent, ignored = messages(*HI, call, *HI)
    assert sent[2:] == [("tool", "", "call_1_0"), ("user", "hi", None)]
    assert ignored == "messages[1].tool_calls[0]"


def test_result_without_a_call_is_the_users_and_is_named():
    sent, ignored = messages({"role": "tool", "content": "7", "tool_name": "add"}, *HI)
    assert sent == [("user", "7", None), ("user", "hi", None)]
    assert ignored == "messages[0]"


def test_images_become_a_short_text_and_are_named():
    sent, ignored = messages({"role": "user", "content": "see", "images": ["aGk=", "aGk="]})
    assert sent[0][1] == "see\n[image omitted: this model reads text only]\n[image omitted: this model reads text only]"
    assert ignored.split(", ") == ["messages[0].images[0]", "messages[0].images[1]"]


def test_thinking_of_an_answer_is_sent_back():
    asked = chat(messages=[*HI, {"role": "Assistant", "content": "yes", "thinking": "hm"}, *HI])
    assert asked.chat.messages[1].reasoning_text() == "hm"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"options": {"repeat_last_n": -2}}, "options.repeat_last_n"),
        ({"format": "json", "messages": [*HI, BEGUN]}, "format"),
        ({"options": {"temprature": 1}}, "options.temprature"),
        ({"options": {"stop": ["x" * 2000]}}, "options.stop[0]"),
        ({"format": "xml"}, "format"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"model": ""}, "model"),
    ],
)
def test_refusal_names_the_callers_own_field(fields, param):
    error = refusal(fields)
    assert error.param == param
    assert param.split(".")[-1].split("[")[0] in error.message


def test_chat_without_messages_asks_for_the_model():
    asked = [chat(messages=[], keep_alive=keep) for keep in (None, "5m", 0, "0", "0s")]
    assert [each.is_load for each in asked] == [True] * 5
    assert [each.is_unload for each in asked] == [False, False, True, True, True]
    assert not chat(keep_alive=0).is_load


def test_completion_is_a_chat_of_system_and_prompt():
    asked = generate(system="be brief", images=["aGk="], think=False, format="json", context=[1, 2])
    assert [(each.role, each.text()) for each in asked.chat.messages] == [
        ("system", "be brief"),
        ("user", "hi\n[image omitted: this model reads text only]"),
    ]
    assert (asked.chat.effort, asked.context, asked.raw) == ("none", (1, 2), None)


def test_raw_completion_has_the_prompt_as_it_is():
    ignored = IgnoredFields()
    assert generate(ignored, raw=True, think=True, images=["aGk="]).raw == "hi"
    assert ignored.header_value() == "images[0], think"


def test_completion_without_a_prompt_asks_for_the_model():
    assert [generate(prompt=prompt).is_load for prompt in ("", None)] == [True, True]
    assert generate(prompt="", keep_alive=0).is_unload


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"suffix": "return x"}, "suffix"),
        ({"raw": True, "system": "x"}, "system"),
        ({"raw": True, "context": [1]}, "context"),
    ],
)
def test_completion_that_would_have_another_prompt_is_refused(fields, param):
    assert refusal(fields, generate).param == param


def test_empty_fields_of_a_completion_ask_for_nothing():
    ignored = IgnoredFields()
    empty = {"system": "", "template": "", "suffix": "", "context": [], "images": [], "raw": False, "format": ""}
    assert not generate(ignored, **empty).is_load
    assert ignored.header_value() == ""
