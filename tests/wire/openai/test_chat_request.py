from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from inferd.errors import InvalidRequestError
from inferd.price import ServiceTier
from inferd.sampling_params import SamplingParams
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import UNSUPPORTED, ChatRequest, parse_chat_request

HELLO = [{"role": "user", "content": "hello"}]


def body(**fields: object) -> bytes:
    return json.dumps({"model": "o/d", "messages": HELLO} | fields).encode()


def parse(**fields: object) -> ChatRequest:
    return parse_chat_request(body(**fields))


def ignored_of(**fields: object) -> str:
    ignored = IgnoredFields()
    parse_chat_request(body(**fields), ignored)
    return ignored.header_value()


def refusal(**fields: object) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    return caught.value


def test_plain_request_has_openais_defaults():
    request = parse()
    assert request.sampling_params() == SamplingParams(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
    assert (request.streamed, request.include_usage, request.completion_limit) == (False, False, None)
    assert [{"role": message.role, "content": message.text()} for message in request.messages] == HELLO


def test_every_sampling_field_is_in_the_sampling_params():
    request = parse(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        seed=7,
        presence_penalty=-1,
        frequency_penalty=1.5,
        logit_bias={"5": -100, "0": 1},
        stop=["a", "b"],
    )
    assert request.sampling_params() == SamplingParams(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        seed=7,
        presence_penalty=-1.0,
        frequency_penalty=1.5,
        logit_bias=((5, -100.0), (0, 1.0)),
        stop=("a", "b"),
    )


def test_null_field_equals_a_field_left_out():
    optional = {field: None for field in ChatRequest.__struct_fields__ if field not in ("model", "messages")}
    assert parse(**optional) == parse()


def test_request_has_every_field_of_the_sdk():
    documented = set(CompletionCreateParamsBase.__annotations__)
    assert documented <= set(ChatRequest.__struct_fields__)


@pytest.mark.parametrize("field", UNSUPPORTED)
@pytest.mark.parametrize("value", [1, "some", [1], {"deep": [1]}])
def test_unsupported_field_is_refused_by_name(field, value):
    error = refusal(**{field: value})
    assert (error.param, error.code) == (field, "unsupported_parameter")
    assert f"'{field}' is not supported;" in error.message


@pytest.mark.parametrize("field", UNSUPPORTED)
@pytest.mark.parametrize("value", [False, [], {}, "", None])
def test_unsupported_field_that_asks_for_nothing_is_accepted(field, value):
    assert ignored_of(**{field: value}) == ""


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"service_tier": "batch"}, "service_tier"),
        ({"service_tier": "scale"}, "service_tier"),
    ],
)
def test_unsupported_value_is_refused_by_name(fields, param):
    assert refusal(**fields).param == param


def test_values_that_ask_for_the_default_are_kept():
    fields: dict[str, object] = {
        "n": 1,
        "logprobs": False,
        "store": False,
        "modalities": ["text"],
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "metadata": {"a": "b"},
        "stream": True,
        "stream_options": {"include_usage": False, "include_obfuscation": False},
    }
    assert ignored_of(**fields) == ""
    asked = parse(**fields)
    assert (asked.num_choices, asked.tier, asked.streamed, asked.include_usage) == (1, ServiceTier.DEFAULT, True, False)
    assert (asked.user, asked.safety_identifier, asked.prompt_cache_key) == ("u", "s", "k")
    assert asked.metadata == {"a": "b"}
    assert asked.constraint is None
    assert asked.sampling_params() == parse().sampling_params()
    assert parse(service_tier="default", stream_options=None) == parse(service_tier="default")


def test_misspelt_field_is_refused_with_the_known_one():
    error = refusal(temprature=1)
    assert (error.param, error.code) == ("temprature", "unknown_parameter")
    assert error.message == "Unknown field 'temprature'. Did you mean 'temperature'?"
    assert refusal(messages=[{"role": "user", "contents": "a"}]).param == "messages[0].contents"
    assert refusal(stream=True, stream_options={"include_usge": True}).param == "stream_options.include_usge"


def test_hostile_field_name_is_repeated_short_and_on_one_line():
    with pytest.raises(InvalidRequestError) as caught:
        parse_chat_request(body(**{"x\n" * 5000: 1}), IgnoredFields(strict=True))
    error = caught.value
    assert len(error.param or "") <= 64
    assert "\n" not in error.message
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": "hot"}, "temperature", "expected a number, got a string"),
        ({"temperature": True}, "temperature", "expected a number, got true or false"),
        ({"stream": 1}, "stream", "expected true or false, got an integer"),
        ({"model": 3}, "model", "expected a string, got an integer"),
        ({"max_tokens": 1.5}, "max_tokens", "expected an integer, got a number"),
        ({"messages": "hello"}, "messages", "expected an array, got a string"),
        ({"messages": [3]}, "messages[0]", "expected an object, got an integer"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "expected a string or an array"),
        (
            {"messages": [*HELLO, {"role": "boss", "content": "x"}]},
            "messages[1].role",
            "'boss' is not one of the known values",
        ),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "is missing"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "expected an object"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "is missing"),
        ({"messages": []}, "messages", "at least one message"),
        ({"model": ""}, "model", "is empty"),
        ({"stop": 3}, "stop", "expected a string or an array, got an integer"),
        ({"stop": [3]}, "stop[0]", "expected a string"),
        ({"logit_bias": {"5": "x"}}, "logit_bias", "expected a number, got a string"),
        ({"logit_bias": [5]}, "logit_bias", "expected an object, got an array"),
    ],
)
def test_wrong_type_names_the_path_in_words(fields, param, words):
    error = refusal(**fields)
    assert error.param == param
    assert words in error.message


def test_missing_field_is_named():
    with pytest.raises(InvalidRequestError) as caught:
        parse_chat_request(b'{"model": "m"}')
    assert caught.value.param == "messages"
    with pytest.raises(InvalidRequestError) as caught:
        parse_chat_request(b'{"messages": []}')
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"min_p": -1}, "min_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 2**31}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"num_predict": 0}, "num_predict"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"min_tokens": 6, "num_predict": 5}, "min_tokens"),
        ({"repeat_last_n": -2}, "repeat_last_n"),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, "repetition_penalty"),
        ({"stop_token_ids": [1] * 129}, "stop_token_ids"),
        ({"stop": "x" * 1025}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"05": 1}}, "logit_bias"),
        ({"logit_bias": {"٥": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ({"user": "x" * 513}, "user"),
        ({"user": "a\0b"}, "user"),
        ({"model": "a\0b"}, "model"),
        ({"prompt_cache_key": "x" * 513}, "prompt_cache_key"),
    ],
)
def test_value_out_of_range_is_refused_by_name(fields, param):
    error = refusal(**fields)
    assert error.param == param
    assert len(error.message) < 300


def test_smallest_limit_holds_under_whatever_name():
    assert parse(max_tokens=5).completion_limit == 5
    assert parse(max_completion_tokens=6).completion_limit == 6
    assert parse(max_tokens=7, max_completion_tokens=7).completion_limit == 7
    assert parse(n_predict=8).completion_limit == 8
    assert parse(num_predict=9, max_tokens=9).completion_limit == 9
    assert parse(num_predict=-2).completion_limit is None
    assert parse(num_predict=-2, max_tokens=4).completion_limit == 4
    assert parse(max_tokens=3, max_completion_tokens=2, n_predict=2).completion_limit == 2
    assert ignored_of(max_tokens=3, max_completion_tokens=2, n_predict=2) == "max_tokens"


def test_repeat_penalty_has_the_window_of_its_own_api():
    def penalty(**fields):
        params = parse(**fields).sampling_params()
        return params.repeat_penalty, params.repeat_last_n

    assert penalty(repetition_penalty=1.2) == (1.2, None)
    assert penalty(repeat_penalty=1.3) == (1.3, 64)
    assert penalty(repeat_penalty=1.3, repeat_last_n=7) == (1.3, 7)
    assert penalty(repeat_penalty=1.3, repeat_last_n=-1) == (1.3, None)
    assert not parse(repeat_penalty=1.3, repeat_last_n=0).sampling_params().penalizes


def test_fields_of_the_end_of_a_text_reach_the_sampling():
    asked = parse(stop_token_ids=[5], include_stop_str_in_output=True, min_tokens=2, ignore_eos=True)
    params = asked.sampling_params()
    assert (params.stop_token_ids, params.includes_stop, params.min_tokens, params.ignores_end) == ((5,), True, 2, True)
    assert parse(allowed_token_ids=[7, 8]).sampling_params().allowed_token_ids == (7, 8)
    assert parse(allowed_token_ids=[]).sampling_params().allowed_token_ids is None


@pytest.mark.parametrize("field", ["stop_token_ids", "allowed_token_ids"])
@pytest.mark.parametrize("token_id", [-1, 100])
def test_token_that_the_model_does_not_have_is_refused_by_name(field, token_id):
    with pytest.raises(InvalidRequestError) as caught:
        parse(**{field: [1, token_id]}).check_vocabulary(100)
    assert caught.value.param == field


def test_usage_is_included_only_on_request():
    assert parse(stream=True, stream_options={"include_usage": True}).include_usage
    assert not parse(stream=True).include_usage


def test_stop_may_be_one_string_or_an_empty_array():
    assert parse(stop="x").sampling_params().stop == ("x",)
    assert parse(stop=[]).sampling_params().stop == ()


def test_sampling_at_the_edges_is_clamped_for_the_engine():
    assert parse(temperature=0).sampling_params().temperature == 0.0
    assert parse(temperature=1e-300).sampling_params().temperature == 0.0
    assert 0.0 < parse(top_p=0).sampling_params().top_p < 0.001
    assert parse(top_k=-1).sampling_params().top_k == 0


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_any_seed_becomes_a_fixed_one_of_32_bits_that_is_not_llama_cpps_random(seed):
    folded = parse(seed=seed).sampling_params().seed
    assert folded is not None
    assert 0 <= folded < 2**32 - 1
    assert folded == parse(seed=seed).sampling_params().seed
    if 0 <= seed < 2**32 - 1:
        assert folded == seed


def test_logit_bias_is_checked_against_the_vocabulary():
    request = parse(logit_bias={"99": 1, "100": 1})
    request.check_vocabulary(101)
    with pytest.raises(InvalidRequestError, match="names token 100; this model has tokens 0 to 99") as caught:
        request.check_vocabulary(100)
    assert caught.value.param == "logit_bias"


# Hostile bodies


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}]} x',
        b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ude00\\ud83d"}]}',
        b'{"model": "m", "temperature": NaN}',
        b'{"model": "m", "temperature": -Infinity}',
        b'{"model": "m", "functions": ' + b"[" * 100_000,
        b'{"model": "m", "functions": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_body_that_is_not_json_is_refused(raw):
    with pytest.raises(InvalidRequestError, match=r"not valid JSON|nested too deep|is empty") as caught:
        parse_chat_request(raw)
    assert caught.value.param is None


@pytest.mark.parametrize("raw", [b"[]", b"3", b"null", b'"x"'])
def test_body_that_is_not_an_object_is_refused(raw):
    with pytest.raises(InvalidRequestError, match="The request body is wrong: expected an object"):
        parse_chat_request(raw)


@pytest.mark.parametrize("number", [b"1e400", b"1" + b"0" * 6000, b"-1" + b"0" * 400 + b".5"])
@pytest.mark.parametrize("field", [b"temperature", b"seed", b"max_tokens", b"tools"])
def test_number_out_of_all_range_is_refused_or_clamped_later(field, number):
    raw = b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "' + field + b'": ' + number + b"}"
    with pytest.raises(InvalidRequestError) as caught:
        parse_chat_request(raw)
    assert caught.value.param == field.decode()
    assert len(caught.value.message) < 300


def test_nul_and_every_unicode_character_are_text():
    text = "\0 \U0001f600 \ue000 ­￿"
    request = parse(messages=[{"role": "user", "content": text}])
    assert request.messages[0].text() == text
    request.messages[0].text().encode("utf-8")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(ChatRequest.__struct_fields__) | st.text(max_size=8)


@given(st.dictionaries(FIELDS, JSON_VALUES, max_size=5))
def test_any_json_is_either_a_usable_request_or_an_invalid_request_error(fields):
    try:
        request = parse_chat_request(msgspec.json.encode({"model": "m", "messages": HELLO} | fields))
    except InvalidRequestError:
        return
    request.sampling_params()
    list(request.tool_set.template_tools())


@given(st.binary(max_size=60))
def test_any_bytes_are_answered_by_an_invalid_request_error(raw):
    with pytest.raises(InvalidRequestError):
        parse_chat_request(raw)
