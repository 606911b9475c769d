"""What a line asks for: the body of a live request, without what only a live one can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from inferd.deployments.deployment import Deployment
from inferd.errors import InvalidRequestError
from inferd.serving.batches.line_answer import ChatAnswer, EmbeddingsAnswer, LineAnswer, ResponsesAnswer, TextAnswer
from inferd.serving.cache_hints import NO_HINTS, CacheHints
from inferd.serving.completion import Admission
from inferd.wire.field_names import OWN_NAMES, FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from inferd.wire.openai.embeddings import EmbeddingRequest, parse_embedding_request
from inferd.wire.openai.responses.requests import ResponsesRequest, parse_responses_request
from inferd.wire.openai.text_completions import TextPrompt, TextRequest, parse_text_request


class LineBody(Protocol):
    """A checked body; what depends on the model comes later.

    Attributes:
        request: what is held, computed and billed for it.
        names: how refusals call its fields.
    """

    @property
    def request(self) -> ChatRequest | TextPrompt | EmbeddingRequest: ...

    @property
    def names(self) -> FieldNames: ...

    @property
    def model(self) -> str: ...

    @property
    def hints(self) -> CacheHints: ...

    @property
    def num_embedding_inputs(self) -> int: ...

    def answer(self, deployment: Deployment, request_id: str, admission: Admission) -> LineAnswer: ...


@dataclass(frozen=True, slots=True)
class ChatBody:
    """Of `/v1/chat/completions`."""

    request: ChatRequest
    names: FieldNames = OWN_NAMES
    num_embedding_inputs: int = 0

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> ChatBody:
        chat = parse_chat_request(body, ignored)
        _refuse_live_fields(chat)
        return cls(chat)

    @property
    def model(self) -> str:
        return self.request.model

    @property
    def hints(self) -> CacheHints:
        return CacheHints.of(self.request, affinity=None, isolation_key=None)

    def answer(self, deployment: Deployment, request_id: str, admission: Admission) -> LineAnswer:
        return ChatAnswer(self.request, deployment, request_id, admission)


@dataclass(frozen=True, slots=True)
class ResponsesBody:
    """Of `/v1/responses`: `request` asks for the same as `asked`."""

    asked: ResponsesRequest
    request: ChatRequest
    names: FieldNames
    num_embedding_inputs: int = 0

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> ResponsesBody:
        asked, chat, names = parse_responses_request(body, ignored)
        _refuse_live_fields(chat)
        return cls(asked, chat, names)

    @property
    def model(self) -> str:
        return self.request.model

    @property
    def hints(self) -> CacheHints:
        return CacheHints.of(self.request, affinity=None, isolation_key=None)

    def answer(self, deployment: Deployment, request_id: str, admission: Admission) -> LineAnswer:
        return ResponsesAnswer(self.asked, self.request, deployment, request_id, admission)


@dataclass(frozen=True, slots=True)
class TextBody:
    """Of `/v1/completions`, with one prompt: each prompt has a bill of its own, and a line has one bill."""

    request: TextPrompt
    names: FieldNames = OWN_NAMES
    num_embedding_inputs: int = 0

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> TextBody:
        text = parse_text_request(body, ignored)
        _refuse_stream(text)
        prompts = text.prompts()
        if len(prompts) > 1:
            raise InvalidRequestError(
                f"A line of a batch has one prompt, this one has {len(prompts)}: give each a line of its own.",
                param="prompt",
                code="unsupported_value",
            )
        return cls(prompts[0])

    @property
    def model(self) -> str:
        return self.request.request.model

    @property
    def hints(self) -> CacheHints:
        return CacheHints.of(self.request.request, affinity=None, isolation_key=None)

    def answer(self, deployment: Deployment, request_id: str, admission: Admission) -> LineAnswer:
        return TextAnswer(self.request, deployment, request_id)


@dataclass(frozen=True, slots=True)
class EmbeddingsBody:
    """Of `/v1/embeddings`."""

    request: EmbeddingRequest
    names: FieldNames = OWN_NAMES

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> EmbeddingsBody:
        return cls(parse_embedding_request(body, ignored))

    @property
    def model(self) -> str:
        return self.request.model

    @property
    def hints(self) -> CacheHints:
        return NO_HINTS

    @property
    def num_embedding_inputs(self) -> int:
        return len(self.request.inputs())

    def answer(self, deployment: Deployment, request_id: str, admission: Admission) -> LineAnswer:
        return EmbeddingsAnswer(self.request, deployment)


_PARSERS: Mapping[str, Callable[[bytes, IgnoredFields], LineBody]] = {
    "/v1/chat/completions": ChatBody.parse,
    "/v1/completions": TextBody.parse,
    "/v1/embeddings": EmbeddingsBody.parse,
    "/v1/responses": ResponsesBody.parse,
}


def parse_body(endpoint: str, body: bytes, ignored: IgnoredFields) -> LineBody:
    """The body of a line of a batch of that endpoint, one of `ENDPOINTS`. Raises InvalidRequestError, as the endpoint
    would."""
    return _PARSERS[endpoint](body, ignored)


def _refuse_live_fields(chat: ChatRequest) -> None:
    _refuse_stream(chat)
    if chat.service_tier not in (None, "auto", "default"):
        raise InvalidRequestError(
            "A line of a batch has the service tier of batches: leave out 'service_tier'.",
            param="service_tier",
            code="service_tier_unavailable",
        )
    if chat.perf_metrics_in_response:
        raise InvalidRequestError(
            "A line of a batch has no 'perf_metrics_in_response': nobody waits for it.",
            param="perf_metrics_in_response",
            code="unsupported_value",
        )


def _refuse_stream(request: ChatRequest | TextRequest) -> None:
    if request.streamed:
        raise InvalidRequestError("A line of a batch cannot stream.", param="stream", code="unsupported_value")
