"""`/v1/messages`: Anthropic's API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

from inferd.errors import InvalidRequestError
from inferd.serving.completion import Admission
from inferd.serving.endpoints.chat import ChatEndpoint
from inferd.serving.endpoints.endpoint import Call
from inferd.serving.endpoints.translated_answer import TranslatedWriter, encode_event
from inferd.wire.anthropic.requests import parse_messages_request
from inferd.wire.anthropic.responses import Ping
from inferd.wire.anthropic.writer import MessageWriter
from inferd.wire.ignored_fields import IgnoredFields

_VERSION_HEADER = "anthropic-version"
_OLDEST_VERSION = "2023-06-01"
"""Streams had another format before it; versions are dates."""
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Messages(ChatEndpoint):
    """Call of `POST /v1/messages`."""

    path = "/v1/messages"
    name = "messages"

    @staticmethod
    def check_headers(headers: Mapping[str, str]) -> None:
        """Raise InvalidRequestError for a version of the API that the server does not speak."""
        version = headers.get(_VERSION_HEADER, _OLDEST_VERSION)
        if not _VERSION.fullmatch(version) or version < _OLDEST_VERSION:
            raise InvalidRequestError(
                f"The header {_VERSION_HEADER} must be a date, {_OLDEST_VERSION} or later.",
                param=_VERSION_HEADER,
                code="unsupported_value",
            )

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(*parse_messages_request(body, ignored))

    def ping(self) -> bytes:
        return encode_event(Ping())

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> TranslatedWriter:
        writer = MessageWriter(
            id=call.answer_id("msg_"),
            model=call.deployment.name,
            service_tier=call.tier.value,
            prompt_tokens=admission.prompt_tokens,
        )
        return TranslatedWriter(call, self.reader(call, admission), writer, streamed=streamed)
