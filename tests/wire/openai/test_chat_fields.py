"""Every field that the types of OpenAI's SDK know, those of messages included: honoured, ignored, or refused.

requirements/dev.txt pins the version of the SDK.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from typing import Any

import pytest
from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
    ChatCompletionStreamOptionsParam,
    completion_create_params,
)

from inferd.errors import InvalidRequestError
from inferd.price import ServiceTier
from inferd.serving.endpoints.cache_hints import CacheHints
from inferd.serving.endpoints.chat import ChatCompletions
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import IGNORED, UNSUPPORTED, ChatRequest, parse_chat_request
from inferd.wire.openai.messages import ContentPart, Message
from inferd.wire.openai.request_fields import StreamOptions
from tests.test_docs import FIELDS

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SDK_FIELDS = sorted(
    {
        key
        for params in (
            completion_create_params.CompletionCreateParamsNonStreaming,
            completion_create_params.CompletionCreateParamsStreaming,
        )
        for key in params.__annotations__
    }
    | set(completion_create_params.CompletionCreateParamsBase.__annotations__)
)
ROLES = ("system", "developer", "user", "assistant", "tool")


def parse(**fields: object) -> ChatRequest:
    return parse_chat_request(json.dumps({"model": "o/d", "messages": HELLO} | fields).encode())


def ignored_of(**fields: object) -> str:
    ignored = IgnoredFields()
    parse_chat_request(json.dumps({"model": "o/d", "messages": HELLO} | fields).encode(), ignored)
    return ignored.header_value()


def refusal(**fields: object) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    return caught.value


def hints(request: ChatRequest) -> CacheHints:
    return ChatCompletions(request).cache_hints


EFFECTS: dict[str, tuple[dict[str, Any], Callable[[ChatRequest], object], object]] = {
    "frequency_penalty": ({"frequency_penalty": 1}, lambda r: r.sampling_params().frequency_penalty, 1.0),
    "logit_bias": (
        {"logit_bias": {"5": -100, "6": 100}},
        lambda r: r.sampling_params().logit_bias,
        ((5, -100), (6, 100)),
    ),
    "logprobs": ({"logprobs": True}, lambda r: r.sampling_params().top_logprobs, 0),
    "max_completion_tokens": ({"max_completion_tokens": 5}, lambda r: r.completion_limit, 5),
    "max_tokens": ({"max_tokens": 5}, lambda r: r.completion_limit, 5),
    "messages": ({"messages": [{"role": "user", "content": "bye"}]}, lambda r: r.messages[0].text(), "bye"),
    "model": ({"model": "x/y"}, lambda r: r.model, "x/y"),
    "n": ({"n": 3}, lambda r: r.num_choices, 3),
    "parallel_tool_calls": ({"tools": [TOOL], "parallel_tool_calls": False}, lambda r: r.tool_set.parallel, False),
    "presence_penalty": ({"presence_penalty": -2}, lambda r: r.sampling_params().presence_penalty, -2.0),
    "prompt_cache_key": ({"prompt_cache_key": "k"}, lambda r: hints(r).session, "k"),
    "reasoning_effort": ({"reasoning_effort": "low"}, lambda r: r.reasoning_effort, "low"),
    "response_format": ({"response_format": {"type": "json_object"}}, lambda r: r.constraint is not None, True),
    "seed": ({"seed": -1}, lambda r: r.sampling_params().seed, 2**32 - 2),
    "service_tier": ({"service_tier": "flex"}, lambda r: r.tier, ServiceTier.FLEX),
    "stop": ({"stop": ["a", "b"]}, lambda r: r.sampling_params().stop, ("a", "b")),
    "stream": ({"stream": True}, lambda r: r.streamed, True),
    "stream_options": (
        {"stream": True, "stream_options": {"include_usage": True}},
        lambda r: r.include_usage,
        True,
    ),
    "temperature": ({"temperature": 0.5}, lambda r: r.sampling_params().temperature, 0.5),
    "tool_choice": ({"tools": [TOOL], "tool_choice": "none"}, lambda r: len(r.tool_set.functions), 0),
    "tools": ({"tools": [TOOL]}, lambda r: len(r.tool_set.functions), 1),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 7}, lambda r: r.sampling_params().top_logprobs, 7),
    "top_p": ({"top_p": 0.5}, lambda r: r.sampling_params().top_p, 0.5),
    "user": ({"user": "u"}, lambda r: hints(r).session, "u"),
}
"""Field -> a request with it, what it must change, and to what."""
RECORDS = {
    "metadata": ({f"k{number}": "v" for number in range(17)}, {"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, ["k"]),
    "safety_identifier": ("x" * 513, "\0", 5),
}
"""Fields that are for the caller's own records -> values that are ignored, or refused."""
ONE_VALUE = {
    "modalities": (["text"], [["text", "audio"]]),
    "store": (False, [True]),
    "verbosity": ("medium", ["low", "high", ""]),
}
"""Fields with one value that asks for nothing more than what is done anyway -> that, and others, which are ignored."""
SDK_UNSUPPORTED = set(UNSUPPORTED) & set(SDK_FIELDS)


def test_every_field_of_the_sdk_is_in_exactly_one_table():
    tables = [*EFFECTS, *RECORDS, *ONE_VALUE, *IGNORED, *SDK_UNSUPPORTED]
    assert sorted(tables) == SDK_FIELDS


@pytest.mark.parametrize("field", SDK_FIELDS)
def test_documentation_of_every_field_agrees_with_its_table(field):
    told = FIELDS[0].rows()[field]
    assert told.startswith("refused") == (field in UNSUPPORTED)
    assert told.startswith("ignored") == (field in IGNORED)
    assert ("only with the value" in told) == (field in ONE_VALUE)
    assert ("your own records" in told) == (field in RECORDS)


@pytest.mark.parametrize("field", EFFECTS)
def test_honoured_field_changes_the_request(field):
    fields, effect, wanted = EFFECTS[field]
    assert effect(parse(**fields)) == wanted
    others = {key: value for key, value in fields.items() if key != field and key != "stream_options"}
    assert effect(parse(**others)) != wanted, "it does not come from this field"


def test_tag_that_is_no_short_text_is_refused():
    for value in RECORDS["safety_identifier"]:
        assert refusal(safety_identifier=value).param == "safety_identifier"


def test_metadata_of_another_shape_is_ignored():
    for value in RECORDS["metadata"]:
        assert ignored_of(metadata=value) == "metadata"


@pytest.mark.parametrize("field", ONE_VALUE)
def test_field_with_one_value_ignores_other_values(field):
    accepted, others = ONE_VALUE[field]
    assert ignored_of(**{field: accepted}) == ""
    for value in others:
        assert ignored_of(**{field: value}) == field


@pytest.mark.parametrize("field", IGNORED)
@pytest.mark.parametrize("value", ["low", {"type": "content", "content": "x"}, {}, 0, ["text"]])
def test_advisory_field_is_ignored_with_any_value(field, value):
    assert ignored_of(**{field: value}) == field


def test_stream_options_have_every_key_of_the_sdk():
    vllm = {"continuous_usage_stats"}
    assert set(ChatCompletionStreamOptionsParam.__annotations__) | vllm == set(StreamOptions.__struct_fields__)


@pytest.mark.parametrize("params", typing.get_args(ChatCompletionMessageParam))
def test_messages_have_every_key_of_the_sdk(params):
    assert set(params.__annotations__) <= set(Message.__struct_fields__)


@pytest.mark.parametrize("params", typing.get_args(ChatCompletionContentPartParam))
def test_content_parts_have_every_key_of_the_sdk(params):
    assert set(params.__annotations__) <= set(ContentPart.__struct_fields__)


def conversation(role: str, content: object) -> list[dict[str, Any]]:
    """Return a conversation that ends with a message of that role."""
    message: dict[str, Any] = {"role": role, "content": content}
    if role != "tool":
        return [message]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [{"role": "assistant", "tool_calls": [call]}, message | {"tool_call_id": "c"}]


PARTS: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_data": "AAAA", "filename": "x.pdf"}},
]


def test_tested_parts_cover_every_type_of_the_sdk():
    kinds = set()
    for params in typing.get_args(ChatCompletionContentPartParam):
        kinds |= set(typing.get_args(typing.get_type_hints(params)["type"]))
    assert kinds == {"text", "image_url", "input_audio", "file"}
    assert kinds - {"text"} <= {part["type"] for part in PARTS}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part["type"])
def test_part_that_is_not_text_becomes_text_in_every_role(role, part):
    messages = conversation(role, [{"type": "text", "text": "look"}, part])
    kind = part["type"].removesuffix("_url").removeprefix("input_")
    assert parse(messages=messages).messages[-1].text() == f"look\n[{kind} omitted: this model reads text only]"
    assert ignored_of(messages=messages) == f"messages[{len(messages) - 1}].content[1]"


@pytest.mark.parametrize("role", ROLES)
def test_text_parts_and_empty_arrays_are_read_in_every_role(role):
    parts = [{"type": "text", "text": text} for text in ("a", "", "b")]
    assert parse(messages=conversation(role, parts)).messages[-1].text() == "a\n\nb"
    assert parse(messages=conversation(role, [])).messages[-1].text() == ""


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"logit_bias": {"1": 100.5}}, "logit_bias"),
        ({"logit_bias": {"1": -101}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": -1}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_value_beyond_its_range_is_refused_by_name(fields, param):
    assert refusal(**fields).param == param


NUMBERS = tuple(str(number) for number in range(16))


@pytest.mark.parametrize(
    ("fields", "parsed", "wanted"),
    [
        ({"stop": NUMBERS}, lambda r: r.sampling_params().stop, NUMBERS),
        ({"stop": []}, lambda r: r.sampling_params().stop, ()),
        ({"stop": ["x"], "tools": [TOOL]}, lambda r: r.sampling_params().stop, ("x",)),
        ({"logit_bias": {}}, lambda r: r.sampling_params().logit_bias, ()),
        ({"logit_bias": {"0": -100, "1": 100}}, lambda r: r.sampling_params().logit_bias, ((0, -100.0), (1, 100.0))),
        ({"seed": -(2**63)}, lambda r: r.sampling_params().seed, -(2**63) % (2**32 - 1)),
        ({"seed": 2**63 - 1}, lambda r: r.sampling_params().seed, (2**63 - 1) % (2**32 - 1)),
        ({"n": 1}, lambda r: r.num_choices, 1),
        ({"n": 16}, lambda r: r.num_choices, 16),
        ({"max_completion_tokens": 1}, lambda r: r.completion_limit, 1),
        ({"max_tokens": 10**9}, lambda r: r.completion_limit, 10**9),
        ({"metadata": dict.fromkeys(NUMBERS, "v" * 512)}, lambda r: r.metadata, dict.fromkeys(NUMBERS, "v" * 512)),
        ({"metadata": {}}, lambda r: r.metadata, {}),
    ],
)
def test_value_at_the_edge_of_its_range_is_kept(fields, parsed, wanted):
    assert parsed(parse(**fields)) == wanted
    assert ignored_of(**fields) == ""
