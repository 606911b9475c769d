"""Messages between the event loop and the engine thread. All are immutable; nothing else is shared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.logprobs import PromptLogprob, TokenLogprob
from inferd.sampling_params import SamplingParams
from inferd.usage import Usage


class FinishReason(StrEnum):
    """Why a request ended. Every accepted request ends with exactly one of these."""

    STOP = "stop"  # an end token or a stop string
    LENGTH = "length"  # `max_tokens` reached, or `max_compute_ms`
    CONSTRAINT = "constraint"  # the request's grammar allows no further token, or its mask takes too long
    CANCELLED = "cancelled"  # aborted by the caller
    ERROR = "error"  # the engine failed or was stopped; never billed


class TrafficClass(IntEnum):
    """Order of service: a smaller class is served first."""

    PRIORITY = 0
    DEFAULT = 1
    BATCH = 2  # served from the time that the other classes leave


@dataclass(frozen=True, slots=True)
class AddRequest:
    """One prompt to continue.

    Attributes:
        request_id: unique among live requests.
        prompt: token ids, not empty; `len(prompt) + max_tokens` fits the context of one sequence.
        max_tokens: maximum number of tokens to sample; with 0 the prompt is computed, and none is sampled.
        tenant: opaque name of the caller; fair shares of the device and of the cache are counted by it.
        cache_scope: opaque; only requests of one scope share prefixes.
        session: opaque name of a conversation, or None; its newest branch is evicted last.
        max_compute_ms: compute time after which the request ends with LENGTH; None for no limit.
        constraint: grammar of the completion, compiled for this engine's vocabulary.
        group: opaque name of the call that the request belongs to, "" for a call of its own; the running sequences
            of a tenant are shared out between its calls.
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
        assert self.max_tokens >= 0, "a number of tokens is not negative"
        assert self.max_compute_ms is None or self.max_compute_ms > 0, "a limit of compute time is positive"

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt)

    @property
    def max_total_tokens(self) -> int:
        """Upper bound of the tokens that are computed."""
        return len(self.prompt) + self.max_tokens


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Inputs to embed. The request has one output, the terminal one.

    Attributes:
        request_id: unique among live requests.
        inputs: token ids of each input, none empty, each at most the embedder's maximum.
        max_compute_ms: maximum compute time that is charged; the request ends with LENGTH and without vectors after
            twice as much. None for no limit.
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
    def max_total_tokens(self) -> int:
        """Upper bound of the tokens that are computed."""
        return self.num_prompt_tokens


@dataclass(frozen=True, slots=True)
class AbortRequest:
    """Request to end another one after the current step. Ids of requests that have ended are ignored."""

    request_id: str


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """Output of one step for one request. The last one has a `finish_reason`.

    Attributes:
        text: new text, whole characters only, stop strings already cut off.
        token_ids: tokens sampled in this step.
        usage: of the terminal output only; for CANCELLED, what was computed until then.
        compute_ns: of the terminal output, the exact compute time that `usage.compute_ms` is rounded from.
        waited_ns: of the terminal output, the time from the request's arrival to its first admission.
        error: for ERROR and CONSTRAINT, the cause in words for the operator.
        logprobs: of the sampled tokens except the end token, if the request asked for them.
        end_logprob: of the end token that ended the request, if it asked for logprobs.
        prompt_logprobs: of the next tokens of the prompt, if the request asked for them; all come before the first
            sampled token.
        stop_string: the stop string that ended the request, if one did.
        embeddings: of an EmbedRequest that ended with STOP: shape (inputs, embedding size), each of length 1; of a
            model with a classification head, its outputs: shape (inputs, labels).
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    compute_ns: int = 0
    waited_ns: int = 0
    error: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    end_logprob: TokenLogprob | None = None
    prompt_logprobs: tuple[PromptLogprob, ...] = ()
    stop_string: str | None = None
    embeddings: npt.NDArray[np.float32] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        assert (self.finish_reason is None) == (self.usage is None), "a terminal output, and only it, has a usage"

    def followed_by(self, later: RequestOutput) -> RequestOutput:
        """Return one output with the contents of this one and of `later`."""
        assert self.finish_reason is None, "nothing follows a terminal output"
        return replace(
            later,
            text=self.text + later.text,
            token_ids=self.token_ids + later.token_ids,
            logprobs=self.logprobs + later.logprobs,
            prompt_logprobs=self.prompt_logprobs + later.prompt_logprobs,
        )
