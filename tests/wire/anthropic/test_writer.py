"""Messages and their events do not depend on the pieces of an answer, and the events add up to the message."""

from __future__ import annotations

import itertools
import json
from typing import Any

from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from inferd.chat.answer_reader import AnswerReader
from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.families import GENERIC, with_reasoning
from inferd.usage import Usage
from inferd.wire.anthropic.responses import ContentBlockDelta, ContentBlockStart, ContentBlockStop
from inferd.wire.anthropic.writer import MessageWriter
from inferd.wire.openai.chat_response import AnswerEnd, usage_body

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>'
ANSWERS = ["", "Yes.", f"Well.\n{CALL}", f"<think>\nHm.\n</think>\n\nWell.\n{CALL}\n{CALL}", "<think>Hm", CALL[:40]]
USAGE = usage_body(Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=3), 1_500)


def written(pieces: list[str], end: AnswerEnd) -> tuple[list[Any], dict[str, Any]]:
    """Return the events, and the whole message without the random ids of calls."""
    parser = answer_parser(with_reasoning(GENERIC, "<think></think>"), {"add": {"type": "object"}})
    reader = AnswerReader(parser, counts_reasoning=True)
    writer = MessageWriter(id="msg_1", model="o/d", service_tier="default", prompt_tokens=10)
    events: list[Any] = list(writer.begin())
    for piece in pieces:
        events += writer.push(reader.push(piece, 1))
    events += writer.push(reader.finish())
    events += writer.finish(end)
    whole = json.loads(writer.whole())
    Message.model_validate(whole, strict=True)
    for block in whole["content"]:
        block.pop("id", None)
    return events, whole


@given(text=st.sampled_from(ANSWERS), places=st.lists(st.integers(0, 120)))
def test_message_does_not_depend_on_the_pieces_and_equals_its_events(text, places):
    cuts = sorted({0, len(text), *(place for place in places if place < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(cuts)]
    end = AnswerEnd("stop", USAGE, 18)
    events, whole = written(pieces, end)
    assert whole == written([text], end)[1]
    for kind in (ContentBlockStart, ContentBlockStop):
        assert [event.index for event in events if isinstance(event, kind)] == list(range(len(whole["content"])))
    for number, block in enumerate(whole["content"]):
        deltas = [e.delta for e in events if isinstance(e, ContentBlockDelta) and e.index == number]
        told = "".join(getattr(delta, delta.__struct_fields__[0]) for delta in deltas)
        if block["type"] != "tool_use":
            assert told == block[block["type"]]
        elif block["input"]:
            assert json.loads(told) == block["input"]


def test_stop_reason_follows_the_end_of_the_answer():
    def reason(end: AnswerEnd) -> tuple[str, str | None]:
        whole = written(["x"], end)[1]
        return whole["stop_reason"], whole["stop_sequence"]

    assert reason(AnswerEnd("stop", USAGE, 18)) == ("end_turn", None)
    assert reason(AnswerEnd("stop", USAGE, 18, "END")) == ("stop_sequence", "END")
    assert reason(AnswerEnd("tool_calls", USAGE, 18)) == ("tool_use", None)
    assert reason(AnswerEnd("length", USAGE, 18)) == ("max_tokens", None)


def test_usage_splits_the_prompt_into_cached_and_other_tokens():
    usage = written(["x"], AnswerEnd("stop", USAGE, 18))[1]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (6, 4, 0)
    assert (usage["output_tokens"], usage["cost"], usage["service_tier"]) == (3, "0.000001500", "standard")
