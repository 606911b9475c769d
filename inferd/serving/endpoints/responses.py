"""`/v1/responses`: OpenAI's Responses API."""

from __future__ import annotations

import time
from typing import Any, Self

import msgspec

from inferd.serving.completion import Admission
from inferd.serving.endpoints.chat import ChatEndpoint
from inferd.serving.endpoints.endpoint import Call
from inferd.serving.endpoints.translated_answer import TranslatedWriter
from inferd.usage import Usage
from inferd.wire.field_names import FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.chat_response import usage_body
from inferd.wire.openai.responses.objects import response_begun, response_usage
from inferd.wire.openai.responses.requests import ResponsesRequest, parse_responses_request
from inferd.wire.openai.responses.writer import ID_PREFIX, ResponseWriter


class Responses(ChatEndpoint):
    """Call of `POST /v1/responses`."""

    path = "/v1/responses"
    name = "responses"

    def __init__(self, asked: ResponsesRequest, chat: ChatRequest, names: FieldNames) -> None:
        super().__init__(chat, names)
        self._asked = asked

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(*parse_responses_request(body, ignored))

    @classmethod
    def usage_fields(cls, usage: Usage, cost_nanousd: int, *, by_time: bool) -> dict[str, Any]:
        known = response_usage(usage_body(usage, cost_nanousd, by_time=by_time))
        fields: dict[str, Any] = msgspec.to_builtins(known)
        del fields["output_tokens_details"]  # tokens of the reasoning, which only the answer has
        return fields

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> TranslatedWriter:
        begun = response_begun(
            self._asked,
            id=call.answer_id(ID_PREFIX),
            created_at=int(time.time()),
            model=call.deployment.name,
            service_tier=call.tier.value,
        )
        reader = self.reader(call, admission)
        return TranslatedWriter(call, reader, ResponseWriter(begun), streamed=streamed)
