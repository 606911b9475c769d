"""The same deltas, whole or in chunks, come to the same choices."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inferd.chat.answer_reader import AnswerReader
from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.families import GENERIC, with_reasoning
from inferd.engine.messages import FinishReason
from inferd.logprobs import TokenLogprob
from inferd.serving.completion import Finished, TextDelta
from inferd.serving.endpoints.chat import ChatWriter
from inferd.usage import Usage
from inferd.wire.openai.chat_response import STREAM_DONE, ChatResponse, data_event

CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
DIALECT = with_reasoning(GENERIC, "<think></think>")
TEXTS = ["Hello there.", f"<think>Hm.</think>{CALL}", "Cut off in the mid"]
FINISHED = Finished(
    finish_reasons=(FinishReason.STOP, FinishReason.STOP, FinishReason.LENGTH),
    usage=Usage(9, 2, 40, 7),
    cost_nanousd=123,
)


def readers() -> list[AnswerReader]:
    schemas = {"f": {"type": "object"}}
    return [AnswerReader(answer_parser(DIALECT, schemas, in_reasoning=False), counts_reasoning=True) for _ in TEXTS]


def writer(*, streamed: bool) -> ChatWriter:
    response = ChatResponse(id="c", created=1, model="o/d", system_fingerprint="fp", include_usage=True)
    return ChatWriter(response, readers(), received_ns=0, shows_logprobs=True, streamed=streamed)


def deltas() -> list[TextDelta]:
    """The choices in turns, a character at a time."""
    found = []
    for place in range(max(map(len, TEXTS))):
        for index, text in enumerate(TEXTS):
            if place < len(text):
                character = text[place]
                shown = (TokenLogprob(character.encode(), -0.5, ()),)
                found.append(TextDelta(character, shown, 1, index))
    return found


def whole() -> dict[str, Any]:
    answer = writer(streamed=False)
    for delta in deltas():
        answer.push(delta)
    assert answer.finish(FINISHED) == ()
    body: dict[str, Any] = json.loads(asyncio.run(answer.body()))
    ChatCompletion.model_validate(body)
    return body


def test_choices_are_in_the_order_of_their_index_each_with_its_end():
    body = whole()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "tool_calls", "length"]
    first, second, third = (choice["message"] for choice in body["choices"])
    assert (first["content"], third["content"]) == (TEXTS[0], TEXTS[2])
    assert (second["content"], second["reasoning_content"]) == (None, "Hm.")
    assert [call["function"] for call in second["tool_calls"]] == [{"name": "f", "arguments": '{"a": 1}'}]
    assert [len(choice["logprobs"]["content"]) for choice in body["choices"]] == [len(text) for text in TEXTS]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (9, 40)
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": len(">Hm.</think>")}


def test_streamed_answer_equals_the_whole():
    answer = writer(streamed=True)
    opening = list(answer.begin())
    events = [data for delta in deltas() for data in answer.push(delta)]
    ending = list(answer.finish(FINISHED))
    assert ending.pop() == data_event(STREAM_DONE)
    chunks = [json.loads(data.removeprefix(b"data: ")) for data in (*opening, *events, *ending)]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    usage = chunks.pop()
    expected = whole()
    assert (usage["choices"], usage["usage"]) == ([], expected["usage"])
    assert [chunk["choices"][0]["index"] for chunk in chunks[:3]] == [0, 1, 2]
    for wanted in expected["choices"]:
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == wanted["index"]]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        content = "".join(choice["delta"].get("content") or "" for choice in own)
        reasoning = "".join(choice["delta"].get("reasoning_content") or "" for choice in own)
        assert content == (wanted["message"]["content"] or "")
        assert reasoning == wanted["message"].get("reasoning_content", "")
        calls = [call for choice in own for call in choice["delta"].get("tool_calls", [])]
        arguments = "".join(call["function"]["arguments"] for call in calls)
        told = wanted["message"].get("tool_calls", [])
        assert arguments == "".join(call["function"]["arguments"] for call in told)
        reasons = [choice["finish_reason"] for choice in own if choice["finish_reason"]]
        assert reasons == [wanted["finish_reason"]]
        assert own[-1]["finish_reason"]
        logprobs = [entry for choice in own for entry in (choice["logprobs"] or {"content": []})["content"]]
        assert logprobs == wanted["logprobs"]["content"]
