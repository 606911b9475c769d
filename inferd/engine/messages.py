"""What crosses the border between the event loop and the engine thread: immutable, nothing else does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.logprobs import TokenLogprob
from inferd.sampling_params import SamplingParams
from inferd.usage import Usage


class FinishReason(StrEnum):
    """Why a request ended. Every accepted request ends with exactly one of these."""

    STOP = "stop"  # an end token or a stop string
    LENGTH = "length"  # `max_tokens` reached, or `max_compute_ms`
    CONSTRAINT = "constraint"  # its own grammar allows no further token, or takes too long to say which
    CANCELLED = "cancelled"  # aborted by the caller
    ERROR = "error"  # the engine failed or was stopped; never billed


class TrafficClass(IntEnum):
    """Who goes first; smaller is sooner."""

    PRIORITY = 0
    DEFAULT = 1
    BATCH = 2  # only what the others leave over


@dataclass(frozen=True, slots=True)
class AddRequest:
    """One prompt to continue.

    Attributes:
        request_id: unique among live requests.
        prompt: token ids, not empty; `len(prompt) + max_tokens` fits one sequence's context.
        max_tokens: most tokens to sample, at least 1.
        tenant: opaque name of who asks; fairness and shares of the cache go by it.
        cache_scope: opaque; requests of one scope share prefixes, others never see them.
        max_compute_ms: after so much compute it ends like at `max_tokens`, or None.
        group: opaque name of the call that it is a part of, "" for one of its own; a tenant's calls share its streams.
        session: opaque name of a conversation, or None; its newest branch stays in the cache longest.
        constraint: what the text must match, compiled for this engine's vocabulary.
    """

    request_id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    max_tokens: int
    tenant: str
    cache_scope: str = ""
    session: str | None = None
    traffic_class: TrafficClass = TrafficClass.DEFAULT
    max_compute_ms: int | None = None
    constraint: CompiledConstraint | None = None
    group: str = ""

    def __post_init__(self) -> None:
        assert self.prompt, "a prompt has at least one token"
        assert self.max_tokens > 0, "at least one token is to be sampled"
        assert self.max_compute_ms is None or self.max_compute_ms > 0, "some time is needed to compute"

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Inputs to make vectors of. Its one output is the terminal one.

    Attributes:
        request_id: unique among live requests.
        inputs: token ids of each input, none empty, each of at most the embedder's `max_tokens`.
        max_compute_ms: most compute that is charged, or None; after twice as much it ends with LENGTH, without vectors.
    """

    request_id: str
    inputs: tuple[tuple[int, ...], ...]
    tenant: str
    traffic_class: TrafficClass = TrafficClass.DEFAULT
    max_compute_ms: int | None = None

    def __post_init__(self) -> None:
        assert self.inputs, "there is at least one input"
        assert all(self.inputs), "an input has at least one token"

    @property
    def num_prompt_tokens(self) -> int:
        return sum(map(len, self.inputs))

    @property
    def max_tokens(self) -> int:
        """Nothing is sampled."""
        return 0


@dataclass(frozen=True, slots=True)
class AbortRequest:
    """Ends a request after the current step. Unknown ids (it has just finished) are ignored."""

    request_id: str


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """What one step brought for one request. With a `finish_reason` it is the terminal, last one.

    Attributes:
        text: new text, whole characters only, stop strings already cut off.
        token_ids: tokens sampled in this step.
        usage: set on the terminal output only; for CANCELLED, what was computed until then.
        compute_ns: of the terminal output, what its usage's `compute_ms` was rounded from.
        error: for ERROR and CONSTRAINT, what happened, in words for the operator.
        logprobs: of the sampled tokens but the end token, where the request asked for them.
        stop_string: the one that ended it, if one did.
        embeddings: of an EmbedRequest that ended with STOP: shape (inputs, n_embd), each of length 1.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    compute_ns: int = 0
    error: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_string: str | None = None
    embeddings: npt.NDArray[np.float32] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        assert (self.finish_reason is None) == (self.usage is None), "a terminal output, and only it, has a usage"

    def followed_by(self, later: RequestOutput) -> RequestOutput:
        """One output with what both of them brought."""
        assert self.finish_reason is None, "nothing follows a terminal output"
        return replace(
            later,
            text=self.text + later.text,
            token_ids=self.token_ids + later.token_ids,
            logprobs=self.logprobs + later.logprobs,
        )
