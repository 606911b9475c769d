from __future__ import annotations

import json

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inferd.usage import Usage
from inferd.wire.answer_deltas import ContentDelta
from inferd.wire.errors import encode_error
from inferd.wire.openai.chat_response import (
    AssistantMessage,
    ChatResponse,
    Choice,
    usage_body,
)

USAGE = Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=3)
USAGE_JSON = {
    "prompt_tokens": 10,
    "completion_tokens": 3,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 4},
    "cost": "0.000001500",
}


def response(include_usage: bool = False, model: str = "o/d") -> ChatResponse:
    return ChatResponse(id="chatcmpl-1", created=17, model=model, system_fingerprint="fp", include_usage=include_usage)


def test_whole_completion_has_openais_shape():
    encoded = response().completion([Choice(AssistantMessage("hi"), "stop")], usage_body(USAGE, 1_500))
    assert json.loads(encoded) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "o/d",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": USAGE_JSON,
        "service_tier": "default",
        "system_fingerprint": "fp",
    }
    ChatCompletion.model_validate(json.loads(encoded), strict=True)


def test_stream_begins_with_the_role_and_ends_with_the_reason():
    stream = response()
    first, text, last = (
        json.loads(chunk)
        for chunk in (
            stream.role_chunk(),
            stream.delta_chunk(ContentDelta("h\n\u2028")),
            stream.finish_chunk("length"),
        )
    )
    assert first == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 17,
        "model": "o/d",
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None, "logprobs": None}
        ],
        "service_tier": "default",
        "system_fingerprint": "fp",
    }
    assert text["choices"][0]["delta"] == {"content": "h\n\u2028"}
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length", "logprobs": None}]
    for chunk in (first, text, last):
        ChatCompletionChunk.model_validate(chunk, strict=True)


def test_usage_is_null_in_every_chunk_but_the_last_if_asked_for():
    stream = response(include_usage=True)
    chunks = [stream.role_chunk(), stream.delta_chunk(ContentDelta("x")), stream.finish_chunk("stop")]
    assert all(json.loads(chunk)["usage"] is None for chunk in chunks)
    last = json.loads(stream.usage_chunk(usage_body(USAGE, 1_500)))
    assert (last["choices"], last["usage"]) == ([], USAGE_JSON)
    ChatCompletionChunk.model_validate(last, strict=True)


def test_usage_is_in_no_chunk_if_not_asked_for():
    assert b"usage" not in response().delta_chunk(ContentDelta("x"))
    with pytest.raises(AssertionError, match="the caller asked"):
        response().usage_chunk(usage_body(USAGE, 0))


def test_chunk_is_one_line():
    assert b"\n" not in response().delta_chunk(ContentDelta("a\r\nb"))


def test_model_name_like_the_choices_does_not_break_chunks():
    name = 'o/"choices":[]'
    stream = response(model=name)
    chunk = json.loads(stream.delta_chunk(ContentDelta(name)))
    assert (chunk["model"], chunk["choices"][0]["delta"]) == (name, {"content": name})
    assert chunk | {"choices": []} == json.loads(stream._chunk([]))


def test_error_body_always_has_four_fields():
    assert json.loads(encode_error("no", "invalid_request_error")) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}
    }
    assert json.loads(encode_error("no", "t", param="messages[0]", code="c"))["error"]["param"] == "messages[0]"
