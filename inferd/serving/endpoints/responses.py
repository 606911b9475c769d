"""`/v1/responses`: OpenAI's Responses API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from inferd.serving.completion import Admission
from inferd.serving.endpoints.cache_hints import CacheHints
from inferd.serving.endpoints.chat import ChatEndpoint
from inferd.serving.endpoints.endpoint import Call
from inferd.serving.endpoints.translated_answer import TranslatedWriter
from inferd.usage import Usage
from inferd.wire.field_names import FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.chat_response import usage_body
from inferd.wire.openai.responses.input_items import EarlierTurn
from inferd.wire.openai.responses.objects import Response, response_begun, response_usage
from inferd.wire.openai.responses.requests import ResponsesRequest, parse_responses_request, responses_chat
from inferd.wire.openai.responses.writer import ID_PREFIX, ResponseWriter


class Responses(ChatEndpoint):
    """Call of `POST /v1/responses`."""

    path = "/v1/responses"
    name = "responses"

    def __init__(
        self, asked: ResponsesRequest, chat: ChatRequest, names: FieldNames, conversation: str | None = None
    ) -> None:
        """Args:
        conversation: id of the first response of the stored conversation that this one belongs to.
        """
        super().__init__(chat, names)
        self.asked = asked
        self._conversation = conversation

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(*parse_responses_request(body, ignored))

    @classmethod
    def of(
        cls,
        asked: ResponsesRequest,
        ignored: IgnoredFields,
        earlier: Sequence[EarlierTurn] = (),
        conversation: str | None = None,
    ) -> Self:
        """Return the call that continues the stored turns `earlier`. Raises InvalidRequestError."""
        return cls(asked, *responses_chat(asked, ignored, earlier), conversation)

    @property
    def cache_hints(self) -> CacheHints:
        """The own ones, else the stored conversation, whose newest prefix stays in the cache longest."""
        named = CacheHints(self.chat.prompt_cache_key, self.chat.isolation_key)
        return named.or_else(CacheHints(self._conversation)).or_else(super().cache_hints)

    @classmethod
    def usage_fields(cls, usage: Usage, cost_nanousd: int, *, by_time: bool) -> dict[str, Any]:
        known = response_usage(usage_body(usage, cost_nanousd, by_time=by_time))
        fields: dict[str, Any] = msgspec.to_builtins(known)
        del fields["output_tokens_details"]  # tokens of the reasoning, which only the answer has
        return fields

    def begun(self, call: Call, *, store: bool) -> Response:
        """Return the response before its first token."""
        return response_begun(
            self.asked,
            id=call.answer_id(ID_PREFIX),
            created_at=int(time.time()),
            model=call.deployment.name,
            service_tier=call.tier.value,
            store=store,
        )

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> TranslatedWriter:
        reader = self.reader(call, admission)
        return TranslatedWriter(call, reader, ResponseWriter(self.begun(call, store=False)), streamed=streamed)
