"""`/api/embed` and the older `/api/embeddings`: Ollama's API."""

from __future__ import annotations

import time
from functools import partial
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from inferd.deployments.local_replica import LocalReplica
from inferd.errors import ContextLengthError
from inferd.serving.completion import Admission, Finished
from inferd.serving.endpoints.embeddings import Embeddings, EmbeddingsWriter
from inferd.serving.endpoints.endpoint import Call
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.ollama.embeddings import (
    OllamaEmbedAsk,
    OllamaEmbeddingsResponse,
    OllamaEmbedResponse,
    embedding_lists,
    parse_ollama_embed,
    parse_ollama_embeddings,
)
from inferd.wire.openai.embeddings import EmbeddingRequest, embedding_usage


class _OllamaVectors(Embeddings):
    """Call of Ollama's API for vectors."""

    def __init__(self, ask: OllamaEmbedAsk) -> None:
        super().__init__(ask.request)
        self.names = ask.names
        self.is_load = ask.is_load

    @property
    def is_empty(self) -> bool:
        return self.is_load


class OllamaEmbed(_OllamaVectors):
    """Call of `POST /api/embed`."""

    path = "/api/embed"
    name = "ollama_embed"

    def __init__(self, ask: OllamaEmbedAsk, ignored: IgnoredFields) -> None:
        super().__init__(ask)
        self._truncates = ask.truncates
        self._ignored = ignored

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_ollama_embed(body, ignored), ignored)

    def record_unheard(self, replica: LocalReplica, ignored: IgnoredFields) -> None:
        if replica.is_ready and (self.asked.dimensions or 0) > replica.embedding_size:
            ignored.add("dimensions", f"must be at most {replica.embedding_size} for this model")

    def check_dimensions(self, replica: LocalReplica) -> None:
        """Take any number: the vectors have the dimensions that there are."""

    def record_cut(self, param: str, error: ContextLengthError) -> None:
        if not self._truncates:
            raise error
        self._ignored.add(param, "is longer than the model takes")

    def empty_answer(self, model: str) -> bytes:
        return msgspec.json.encode(OllamaEmbedResponse(model=model, embeddings=[]))

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> EmbeddingsWriter:
        load_ns = time.monotonic_ns() - call.received_ns
        return EmbeddingsWriter(call, partial(_encoded, call, self.asked, load_ns))


class OllamaEmbeddings(_OllamaVectors):
    """Call of `POST /api/embeddings`."""

    path = "/api/embeddings"
    name = "ollama_embeddings"

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_ollama_embeddings(body, ignored))

    def empty_answer(self, model: str) -> bytes:
        return msgspec.json.encode(OllamaEmbeddingsResponse(embedding=[]))

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> EmbeddingsWriter:
        return EmbeddingsWriter(call, partial(_encoded_one, self.asked))


def _encoded(
    call: Call, asked: EmbeddingRequest, load_ns: int, end: Finished, vectors: npt.NDArray[np.float32]
) -> bytes:
    response = OllamaEmbedResponse(
        model=call.deployment.name,
        embeddings=embedding_lists(asked, vectors),
        total_duration=end.ended_ns - call.received_ns,
        load_duration=load_ns,
        prompt_eval_count=end.usage.prompt_tokens,
        usage=embedding_usage(end.usage, end.cost_nanousd, by_time=end.by_time),
    )
    return msgspec.json.encode(response)


def _encoded_one(asked: EmbeddingRequest, end: Finished, vectors: npt.NDArray[np.float32]) -> bytes:
    (vector,) = embedding_lists(asked, vectors)
    usage = embedding_usage(end.usage, end.cost_nanousd, by_time=end.by_time)
    return msgspec.json.encode(OllamaEmbeddingsResponse(embedding=vector, usage=usage))
