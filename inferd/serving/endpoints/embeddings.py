"""`/v1/embeddings`: one hold a request, whatever the number of its inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.errors import ContextLengthError, InvalidRequestError
from inferd.serving.completion import Admission, AnswerWriter, Finished
from inferd.serving.endpoints.endpoint import Call, Endpoint, RequestLabels
from inferd.serving.endpoints.prompt import check_token_ids, no_tokens
from inferd.tokenizer import Check, EncodeLimits
from inferd.usage import Usage
from inferd.wire.errors import invalid
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.embeddings import (
    EmbeddingRequest,
    embedding_usage,
    encode_embeddings,
    parse_embedding_request,
)
from inferd.wire.openai.request_fields import TextInput
from inferd.wire.openai.tokenize import MAX_TEXT_BYTES

CODE_COMPUTE = "max_compute_exceeded"
RecordCut = Callable[[str, ContextLengthError], None]
"""Records that the end of an input is left out, which is at this path. Raises the error if it must not be: the input is
too long."""


class Embeddings(Endpoint):
    """Call of `POST /v1/embeddings`."""

    path = "/v1/embeddings"
    name = "embeddings"
    reads_cache_headers = False

    def __init__(self, asked: EmbeddingRequest) -> None:
        self.asked = asked
        self.num_embedding_inputs = len(asked.inputs())

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_embedding_request(body, ignored))

    @property
    def model(self) -> str:
        return self.asked.model

    def check_model(self, deployment: Deployment) -> None:
        deployment.check_makes_embeddings()

    def prepare(
        self, number: int, deployment: Deployment, max_output_tokens: int | None = None, *, check: Check | None = None
    ) -> PreparedInputs:
        replica = deployment.replica
        self.check_dimensions(replica)
        inputs = (input_token_ids(one, replica, check, self.record_cut) for one in self.asked.inputs())
        return PreparedInputs(tuple(inputs), replica)

    def check_dimensions(self, replica: LocalReplica) -> None:
        """Raise InvalidRequestError if the request wants more dimensions than the vectors have."""
        if self.asked.dimensions is not None and self.asked.dimensions > replica.embedding_size:
            raise InvalidRequestError(
                f"'dimensions' must be at most {replica.embedding_size} for this model, got {self.asked.dimensions}.",
                param="dimensions",
                code="invalid_value",
            )

    def record_cut(self, param: str, error: ContextLengthError) -> None:
        """See `RecordCut`."""
        refuse_long(param, error)

    @classmethod
    def usage_fields(cls, usage: Usage, cost_nanousd: int, *, by_time: bool) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(embedding_usage(usage, cost_nanousd, by_time=by_time))
        return fields

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> EmbeddingsWriter:
        return EmbeddingsWriter(call, partial(_encoded, self.asked, call.deployment.name))


@dataclass(frozen=True, slots=True)
class PreparedInputs:
    """Embedding request in the engine's terms; only its input is held and billed.

    Attributes:
        param: field of the inputs.
        num_cut: inputs of which only the beginning is computed.
    """

    inputs: tuple[tuple[int, ...], ...]
    replica: LocalReplica
    param: str = "input"
    num_cut: int = 0

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.inputs))

    @property
    def max_tokens(self) -> int:
        return 0

    @property
    def num_choices(self) -> int:
        return 1

    @property
    def admission(self) -> Admission:
        return Admission(self.prompt_tokens, num_cut=self.num_cut)

    async def engine_requests(self, labels: RequestLabels) -> Sequence[AddRequest | EmbedRequest]:
        ms_per_token = self.replica.speed.embedding_ms_per_token
        if labels.max_compute_ms is not None and ms_per_token is not None:
            self._check_compute(labels.max_compute_ms, ms_per_token)
        request = EmbedRequest(
            labels.request_id,
            self.inputs,
            tenant=labels.tenant,
            traffic_class=labels.traffic_class,
            max_compute_ms=labels.max_compute_ms,
        )
        return [request]

    def _check_compute(self, max_compute_ms: int, ms_per_token: float) -> None:
        """Raise InvalidRequestError if the inputs take more compute than a request may have, by a measured rate."""
        most_tokens = max_compute_ms / ms_per_token
        if self.prompt_tokens <= most_tokens:
            return
        num_fitting = sum(num_tokens <= most_tokens for num_tokens in accumulate(map(len, self.inputs)))
        remedy = f"Send at most the first {num_fitting} of them at once." if num_fitting else "Shorten the first one."
        raise InvalidRequestError(
            f"'{self.param}' would take about {round(self.prompt_tokens * ms_per_token)} ms of compute: it has "
            f"{len(self.inputs)} inputs of {self.prompt_tokens} tokens together. A request may have {max_compute_ms} "
            f"ms. {remedy}",
            param=self.param,
            code=CODE_COMPUTE,
        )


class EmbeddingsWriter(AnswerWriter):
    """Writer of embeddings or scores, which are not streamed.

    Args:
        encode: returns the answer to a request that was computed, with its vectors.
        param: field of the inputs.
    """

    def __init__(
        self, call: Call, encode: Callable[[Finished, npt.NDArray[np.float32]], bytes], param: str = "input"
    ) -> None:
        self._call = call
        self._encode = encode
        self._param = param
        self._finished: Finished | None = None

    def finish(self, finished: Finished) -> Iterable[bytes]:
        self._finished = finished
        return ()

    async def body(self) -> bytes:
        """Encode on a worker thread: it takes milliseconds a megabyte. Raises InvalidRequestError if the request was
        stopped for its compute time."""
        end = self._finished
        assert end is not None, "finish comes first"
        if end.embeddings is None:
            raise self._stopped(by_time=end.by_time)
        return await asyncio.to_thread(self._encode, end, end.embeddings)

    def _stopped(self, *, by_time: bool) -> InvalidRequestError:
        """Return the error of a request that took twice the compute that it may have."""
        max_compute_ms = self._call.deployment.max_compute_ms
        used = f"{max_compute_ms} ms were {'billed' if by_time else 'used'}."
        cost = used if self._call.persist is None else "Nothing was billed."
        return InvalidRequestError(
            f"'{self._param}' took more than twice the {max_compute_ms} ms of compute that a request may have, and was "
            f"stopped. {cost} Send fewer or shorter inputs at once.",
            param=self._param,
            code=CODE_COMPUTE,
        )


def _encoded(asked: EmbeddingRequest, model: str, end: Finished, vectors: npt.NDArray[np.float32]) -> bytes:
    return encode_embeddings(asked, vectors, model, end.usage, end.cost_nanousd, by_time=end.by_time)


def refuse_long(param: str, error: ContextLengthError) -> None:
    """Refuse each input that is too long; a RecordCut."""
    raise error


def input_token_ids(
    one: TextInput,
    replica: LocalReplica,
    check: Check | None,
    record_cut: RecordCut,
) -> tuple[int, ...]:
    """Return the tokens of one input. Control tokens in a text stay characters, and the vocabulary's tokens around a
    text are there; token ids are taken as they are."""
    if isinstance(one.content, str):
        if num_tokens := _num_certain_tokens(one.content, one.param, replica):
            record_cut(one.param, _too_long(replica, f"at least {num_tokens}", one.param))
        most = replica.max_embedding_tokens
        try:
            token_ids = tuple(replica.tokenizer.encode_document(one.content, EncodeLimits(most, check)))
            if len(token_ids) > most:
                record_cut(one.param, _too_long(replica, f"at least {len(token_ids)}", one.param))
                limits = EncodeLimits(most, check)
                token_ids = tuple(replica.tokenizer.encode_document(one.content, limits, most=most))
        except InvalidRequestError as error:
            error.param = error.param or one.param
            raise
    else:
        token_ids = one.content
        check_token_ids(token_ids, replica.tokenizer.n_vocab, one.param)
    if not token_ids:
        raise no_tokens(one.param)
    if len(token_ids) > replica.max_embedding_tokens:
        raise _too_long(replica, f"at least {len(token_ids)}", one.param)
    return token_ids


def _num_certain_tokens(text: str, param: str, replica: LocalReplica) -> int | None:
    """Return the least number of tokens of a text that is certainly too long, before it is tokenised; None if it may
    fit. Raises InvalidRequestError for a text that takes too much time. The vocabularies of embedding models drop
    white space and take any unknown word for one token, so the length of a text says nothing there."""
    num_bytes = len(text.encode())
    if not replica.makes_text:
        if num_bytes > MAX_TEXT_BYTES:
            raise invalid(param, f"'{param}' has {num_bytes} bytes; at most {MAX_TEXT_BYTES} are taken.")
        return None
    least_tokens = -(-num_bytes // replica.tokenizer.max_token_bytes)
    return least_tokens if least_tokens > replica.max_embedding_tokens else None


def _too_long(replica: LocalReplica, num_tokens: str, param: str) -> ContextLengthError:
    return ContextLengthError(
        f"This model's maximum input length is {replica.max_embedding_tokens} tokens. However, your {param} resulted "
        f"in {num_tokens} tokens. Please shorten it.",
        param=param,
    )
