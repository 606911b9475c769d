"""The answer to a line, from the engine's deltas to the body that the endpoint would have sent."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from inferd.deployments.deployment import Deployment
from inferd.price import ServiceTier
from inferd.serving.completion import Admission, Finished, TextDelta
from inferd.serving.endpoints.chat_answer import WholeAnswer
from inferd.serving.endpoints.embedding_admission import stopped_error
from inferd.serving.endpoints.text_answer import WholeTextAnswer, echo_of
from inferd.serving.endpoints.translated_answer import TranslatedAnswer
from inferd.serving.request_id import PREFIX
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.chat_response import ChatResponse
from inferd.wire.openai.embeddings import EmbeddingRequest, encode_embeddings
from inferd.wire.openai.responses.objects import response_begun
from inferd.wire.openai.responses.requests import ResponsesRequest
from inferd.wire.openai.responses.writer import ID_PREFIX, ResponseWriter
from inferd.wire.openai.text_completions import TextPrompt, TextResponse


class LineAnswer(Protocol):
    """Add every delta, then take the body."""

    def add(self, delta: TextDelta) -> None: ...

    async def body(self, end: Finished) -> bytes:
        """JSON; once. What it says of the cost is the ledger's to replace."""
        ...


class ChatAnswer:
    """Of `/v1/chat/completions`."""

    def __init__(self, chat: ChatRequest, deployment: Deployment, request_id: str, admission: Admission) -> None:
        response = ChatResponse(
            id="chatcmpl-" + request_id.removeprefix(PREFIX),
            created=int(time.time()),
            model=deployment.name,
            system_fingerprint=deployment.replica.fingerprint,
            service_tier=ServiceTier.BATCH,
        )
        chat_format = deployment.replica.chat_format
        readers = [chat_format.reader(chat, in_reasoning=admission.in_reasoning) for _ in range(chat.n_choices)]
        self._answer = WholeAnswer(response, readers, shows_logprobs=bool(chat.logprobs))

    def add(self, delta: TextDelta) -> None:
        self._answer.add(delta)

    async def body(self, end: Finished) -> bytes:
        return self._answer.body(end)


class ResponsesAnswer:
    """Of `/v1/responses`."""

    def __init__(
        self,
        asked: ResponsesRequest,
        chat: ChatRequest,
        deployment: Deployment,
        request_id: str,
        admission: Admission,
    ) -> None:
        begun = response_begun(
            asked,
            id=ID_PREFIX + request_id.removeprefix(PREFIX),
            created_at=int(time.time()),
            model=deployment.name,
            service_tier=ServiceTier.BATCH.value,
        )
        reader = deployment.replica.chat_format.reader(chat, in_reasoning=admission.in_reasoning)
        self._answer = TranslatedAnswer(reader, ResponseWriter(begun))

    def add(self, delta: TextDelta) -> None:
        self._answer.add(delta)

    async def body(self, end: Finished) -> bytes:
        return self._answer.whole(end)


class TextAnswer:
    """Of `/v1/completions`."""

    def __init__(self, prompt: TextPrompt, deployment: Deployment, request_id: str) -> None:
        response = TextResponse(
            id="cmpl-" + request_id.removeprefix(PREFIX),
            created=int(time.time()),
            model=deployment.name,
            system_fingerprint=deployment.replica.fingerprint,
        )
        shows_logprobs = prompt.request.logprobs is not None
        echoes = [echo_of(prompt, deployment)]
        self._answer = WholeTextAnswer(response, echoes, prompt.n_choices, shows_logprobs=shows_logprobs)

    def add(self, delta: TextDelta) -> None:
        self._answer.add(0, delta)

    async def body(self, end: Finished) -> bytes:
        self._answer.end(0, end)
        return self._answer.body()


class EmbeddingsAnswer:
    """Of `/v1/embeddings`."""

    def __init__(self, asked: EmbeddingRequest, deployment: Deployment) -> None:
        self._asked = asked
        self._model = deployment.name
        self._max_compute_ms = deployment.max_compute_ms

    def add(self, delta: TextDelta) -> None:
        raise AssertionError("vectors come whole")

    async def body(self, end: Finished) -> bytes:
        if end.embeddings is None:
            raise stopped_error(self._max_compute_ms, billed=False)
        return await asyncio.to_thread(
            encode_embeddings,
            self._asked,
            end.embeddings,
            self._model,
            end.usage,
            end.cost_nanousd,
            by_time=end.by_time,
        )
