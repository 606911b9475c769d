"""Responses and their events do not depend on the pieces of an answer, and the events add up to the response."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from inferd.chat.answer_reader import AnswerReader
from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.families import GENERIC, with_reasoning
from inferd.usage import Usage
from inferd.wire.openai.chat_response import AnswerEnd, usage_body
from inferd.wire.openai.responses.events import Event, OutputItemDone, OutputTextDelta, ReasoningTextDelta
from inferd.wire.openai.responses.objects import response_begun
from inferd.wire.openai.responses.requests import ResponsesRequest
from inferd.wire.openai.responses.tools import ResponseTool
from inferd.wire.openai.responses.writer import ResponseWriter

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>'
ANSWERS = ["", "Yes.", f"Well.\n{CALL}", f"<think>\nHm.\n</think>\n\nWell.\n{CALL}\n{CALL}", "<think>Hm", CALL[:40]]
USAGE = usage_body(Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=3), 1_500)


def written(
    pieces: list[str], reason: str = "stop", *, tools: list[ResponseTool] | None = None
) -> tuple[list[Event], dict[str, Any]]:
    """Return the events, and the whole response without the random ids of calls."""
    schemas = {"add": {"type": "object"}, "math__add": {"type": "object"}}
    parser = answer_parser(with_reasoning(GENERIC, "<think></think>"), schemas)
    reader = AnswerReader(parser, counts_reasoning=True)
    asked = ResponsesRequest(model="o/d", input="x", tools=tools)
    writer = ResponseWriter(response_begun(asked, id="resp_1", created_at=17, model="o/d", service_tier="default"))
    events: list[Any] = list(writer.begin())
    for piece in pieces:
        events += writer.push(reader.push(piece, 1))
    events += writer.push(reader.finish())
    events += writer.finish(AnswerEnd(reason, USAGE, 18))  # type: ignore[arg-type]
    whole = json.loads(writer.whole())
    Response.model_validate(whole, strict=True)
    for item in whole["output"]:
        item.pop("call_id", None)
    return events, whole


def test_call_of_a_namespaced_function_has_the_namespace_apart():
    add = ResponseTool("function", "add", "Adds.", {"type": "object"}, strict=False)
    tools = [ResponseTool("namespace", "math", "Sums.", tools=[add])]
    events, whole = written([CALL.replace("add", "math__add")], tools=tools)
    (call,) = whole["output"]
    assert (call["namespace"], call["name"], json.loads(call["arguments"])) == ("math", "add", {"a": 7})
    (done,) = [event.item for event in events if isinstance(event, OutputItemDone)]
    assert (done.namespace, done.name) == ("math", "add")


def test_call_of_another_function_has_no_namespace():
    assert "namespace" not in written([CALL])[1]["output"][0]


@given(text=st.sampled_from(ANSWERS), places=st.lists(st.integers(0, 120)))
def test_response_does_not_depend_on_the_pieces_and_equals_its_events(text, places):
    cuts = sorted({0, len(text), *(place for place in places if place < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(cuts)]
    events, whole = written(pieces)
    assert whole == written([text])[1]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    done = [event for event in events if isinstance(event, OutputItemDone)]
    assert [event.output_index for event in done] == list(range(len(whole["output"])))
    for number, item in enumerate(whole["output"]):
        deltas = [event.delta for event in events if getattr(event, "output_index", None) == number and _grows(event)]
        told = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert "".join(deltas) == told


def _grows(event: Event) -> bool:
    return isinstance(event, OutputTextDelta | ReasoningTextDelta) or hasattr(event, "delta")


def test_cut_answer_is_incomplete_with_its_last_item():
    _, whole = written(["<think>Hm.</think>", "Wel"], reason="length")
    assert [item["status"] for item in whole["output"]] == ["completed", "incomplete"]
    assert (whole["status"], whole["completed_at"]) == ("incomplete", None)
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}


def test_usage_has_the_same_numbers_under_other_names():
    _, whole = written(["x"])
    assert whole["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 13,
        "cost": "0.000001500",
    }
