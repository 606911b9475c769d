"""Generation endpoint: one class for its live calls and for the lines of batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import msgspec

from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.messages import AddRequest, EmbedRequest, TrafficClass
from inferd.errors import InvalidRequestError
from inferd.ledger.identity import Caller
from inferd.price import ServiceTier
from inferd.serving.completion import Admission, AnswerWriter, Finished
from inferd.serving.endpoints.cache_hints import CacheHints
from inferd.serving.request_id import PREFIX
from inferd.tokenizer import Check
from inferd.usage import Usage
from inferd.wire.field_names import OWN_NAMES, FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_response import Timings, timings_of, usage_body

Persist = Callable[[Finished], Awaitable[bool]]
"""Called once with a request's end before it is settled; returning False voids its hold (BILLING R23)."""
OnSettled = Callable[[Finished], Awaitable[None]]
"""Called once with a request's end after it was settled, before its reader gets the end. It must not raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLabels:
    """Fields that a request to the engine has beside its input, see `AddRequest`."""

    request_id: str
    tenant: str
    cache_scope: str
    session: str | None
    traffic_class: TrafficClass
    max_compute_ms: int | None
    group: str


class Prepared(Protocol):
    """One request in the engine's terms."""

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Most tokens that are sampled for each choice: the engine's stop, and the size of the hold (BILLING R4)."""
        ...

    @property
    def num_choices(self) -> int: ...

    @property
    def admission(self) -> Admission: ...

    async def engine_requests(self, labels: RequestLabels) -> Sequence[AddRequest | EmbedRequest]:
        """Return one request a choice. Raises InvalidRequestError, OverloadedError or RateLimitError for what cannot be
        computed."""
        ...


class Endpoint(ABC):
    """One call to an endpoint, from its checked body to its answer.

    Attributes:
        path: of its route.
        name: of its handler.
        reads_cache_headers: whether the headers of prefix caching have a meaning for it.
        media_type: of its streams.
        names: what its caller calls the fields that refusals name.
        num_requests: requests that it makes, each with its own hold: more than one only of a text completion.
        num_embedding_inputs: inputs that it has vectors computed of.
    """

    path: ClassVar[str]
    name: ClassVar[str]
    reads_cache_headers: ClassVar[bool] = True
    media_type: ClassVar[str] = "text/event-stream"
    names: FieldNames = OWN_NAMES
    num_requests: int = 1
    num_embedding_inputs: int = 0

    @staticmethod
    def check_headers(headers: Mapping[str, str]) -> None:
        """Raise InvalidRequestError for HTTP headers that the endpoint does not understand."""
        return

    @classmethod
    @abstractmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        """Decode and check a body. Raises InvalidRequestError; checks that need the model come later."""

    @property
    @abstractmethod
    def model(self) -> str: ...

    @property
    def tier(self) -> ServiceTier:
        return ServiceTier.DEFAULT

    @property
    def streamed(self) -> bool:
        return False

    @property
    def cache_hints(self) -> CacheHints:
        return CacheHints()

    @property
    def is_empty(self) -> bool:
        """True if the call asks only for the model to be ready; its answer is `empty_answer`."""
        return False

    def empty_answer(self, model: str) -> bytes:
        """Return the answer to an empty call.

        Args:
            model: name of the deployment.
        """
        raise AssertionError("no call to this endpoint is empty")

    def ping(self) -> bytes | None:
        """Return an event for a stream in which nothing happens for long; None: a comment."""
        return None

    def check_line(self) -> None:
        """Raise InvalidRequestError for fields that a line of a batch cannot have."""
        if self.streamed:
            raise InvalidRequestError("A line of a batch cannot stream.", param="stream", code="unsupported_value")

    def check_model(self, deployment: Deployment) -> None:
        """Raise InvalidRequestError if the model, which is ready, is not for such calls."""
        return

    def record_unheard(self, replica: LocalReplica, ignored: IgnoredFields) -> None:
        """Record fields that the model cannot be told. Raises InvalidRequestError if strict."""
        return

    @abstractmethod
    def prepare(
        self, number: int, deployment: Deployment, max_output_tokens: int | None = None, *, check: Check | None = None
    ) -> Prepared:
        """Render and tokenise one of its requests; takes milliseconds of CPU, so it runs on a worker thread.

        Args:
            max_output_tokens: most completion tokens that the caller's tier allows (BILLING R18); None: any.
            check: called before each step that takes time; raises if the request is no longer wanted.

        Raises:
            InvalidRequestError: the input makes no sense to the model.
            ContextLengthError: the input is too long.
        """

    @classmethod
    def usage_fields(cls, usage: Usage, cost_nanousd: int, *, by_time: bool) -> dict[str, Any]:
        """Return the `usage` of an answer as the ledger has it, without fields that only the answer has."""
        fields: dict[str, Any] = msgspec.to_builtins(usage_body(usage, cost_nanousd, by_time=by_time))
        return fields

    @abstractmethod
    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> AnswerWriter: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A caller's call to a deployment.

    Attributes:
        request_id: of its first request; a further one has `ID-NUMBER`.
        tier: that serves and bills it.
        received_ns: when it came, on `time.monotonic_ns`.
        persist: must store the answer before it is billed; None: the answer goes to the caller once it is billed.
        on_settled: completes what `persist` has stored; None: there is nothing to complete.
    """

    request_id: str
    caller: Caller
    endpoint: Endpoint
    deployment: Deployment
    tier: ServiceTier
    cache: CacheHints
    received_ns: int
    persist: Persist | None = None
    on_settled: OnSettled | None = None

    def answer_id(self, prefix: str) -> str:
        """Return the id of the answer, such as `chatcmpl-...`."""
        return prefix + self.request_id.removeprefix(PREFIX)


def performance_metrics(finished: Finished, received_ns: int) -> dict[str, str]:
    """Return metrics of an answer under Fireworks' names: counts of tokens, and seconds with 6 places.

    Args:
        received_ns: when the call came, on `time.monotonic_ns`.
    """
    usage = finished.usage
    metrics = {"prompt-tokens": str(usage.prompt_tokens), "cached-prompt-tokens": str(usage.cached_tokens)}
    if finished.first_token_ns is not None:
        metrics["server-time-to-first-token"] = _seconds(finished.first_token_ns - received_ns)
    metrics["server-processing-time"] = _seconds(finished.ended_ns - received_ns)
    return metrics


def timings(finished: Finished) -> Timings:
    """Return the speeds of a finished request."""
    return timings_of(finished.usage, prompt_ns=finished.prompt_ns, predicted_ns=finished.predicted_ns)


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.6f}"
