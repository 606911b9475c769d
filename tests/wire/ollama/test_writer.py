"""Lines of Ollama's answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from inferd.logprobs import TokenAlternative, TokenLogprob
from inferd.usage import Usage
from inferd.wire.answer_deltas import AnswerDelta, CallArguments, CallStart, ContentDelta, ReasoningDelta
from inferd.wire.ollama.responses import AnswerMetrics
from inferd.wire.ollama.writer import OllamaLineWriter
from inferd.wire.openai.chat_response import usage_body

METRICS = AnswerMetrics(
    done_reason="stop",
    total_duration=9,
    load_duration=1,
    prompt_eval_count=4,
    prompt_eval_duration=3,
    eval_count=2,
    eval_duration=5,
    usage=usage_body(Usage(4, 1, 2), 7),
)
MESSAGE = ("role", "content", "thinking", "tool_calls")


def written(*deltas: AnswerDelta, is_chat: bool = True) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the lines of a stream, and the whole answer."""
    writer = OllamaLineWriter("a/b", is_chat=is_chat)
    lines = [*writer.push(deltas), *writer.finish(METRICS, None if is_chat else [1, 2])]
    return [msgspec.to_builtins(line) for line in lines], json.loads(writer.whole())


def test_stream_has_a_line_a_piece_and_the_whole_is_their_sum():
    lines, whole = written(ReasoningDelta("Hm"), ContentDelta("Hel"), ContentDelta("lo"))
    assert [line["message"] for line in lines] == [
        {"content": "", "role": "assistant", "thinking": "Hm"},
        {"content": "Hel", "role": "assistant"},
        {"content": "lo", "role": "assistant"},
        {"content": "", "role": "assistant"},
    ]
    assert [line["done"] for line in lines] == [False, False, False, True]
    assert whole["message"] == {"content": "Hello", "role": "assistant", "thinking": "Hm"}
    last = {**lines[-1], "message": None, "created_at": None}
    assert {**whole, "message": None, "created_at": None} == last
    assert (last["model"], last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("a/b", "stop", 4, 2)
    assert (last["total_duration"], last["usage"]["cost"]) == (9, "0.000000007")


def test_call_is_written_whole_with_its_arguments_as_an_object():
    first, second = CallStart(0, "add"), CallStart(1, "sub")
    lines, whole = written(
        ContentDelta("Well."), first, CallArguments(0, '{"a": '), CallArguments(0, "1}"), second, CallArguments(1, "{}")
    )
    calls = [call for line in lines for call in line["message"].get("tool_calls", [])]
    assert calls == [
        {"id": first.id, "function": {"index": 0, "name": "add", "arguments": {"a": 1}}},
        {"id": second.id, "function": {"index": 1, "name": "sub", "arguments": {}}},
    ]
    assert whole["message"]["tool_calls"] == calls


def test_call_that_was_cut_is_left_out():
    lines, whole = written(CallStart(0, "delete"), CallArguments(0, '{"path": "/ho'))
    assert "tool_calls" not in whole["message"]
    assert not [line for line in lines if "tool_calls" in line["message"]]


def test_completion_has_a_text_and_a_context():
    lines, whole = written(ReasoningDelta("Hm"), ContentDelta("Yes"), is_chat=False)
    assert [(line["response"], line.get("thinking")) for line in lines] == [("", "Hm"), ("Yes", None), ("", None)]
    assert (whole["response"], whole["thinking"], whole["context"]) == ("Yes", "Hm", [1, 2])
    assert lines[-1]["context"] == [1, 2]


def test_log_probabilities_are_on_the_line_of_their_text_and_in_the_whole():
    writer = OllamaLineWriter("a/b", is_chat=True)
    token = TokenLogprob(b"Hi", -0.5, (TokenAlternative(b"Hi", -0.5),))
    lines = [*writer.push([ContentDelta("Hi")], [token]), *writer.push([], [token]), *writer.finish(METRICS)]
    shown = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]
    expected = [shown[0] | {"top_logprobs": shown}]
    assert [msgspec.to_builtins(line).get("logprobs") for line in lines] == [expected, expected, None]
    assert json.loads(writer.whole())["logprobs"] == expected * 2
