"""Prompts of generation requests: tokenised, with their limits, in the engine's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.errors import ContextLengthError, InvalidRequestError
from inferd.sampling_params import SamplingParams
from inferd.serving.completion import Admission
from inferd.serving.endpoints.endpoint import RequestLabels
from inferd.tokenizer import Check, EncodeLimits, Segment

MAX_PROMPT_LOGPROBS = 2**18
"""Log-probabilities of prompts in one answer: about 20 MB of JSON."""


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """Generation request in the engine's terms.

    Attributes:
        max_tokens: of each choice: the engine's stop, and the size of the hold (BILLING R4).
        clamped_max_tokens: `max_tokens` if it is less than the caller asked for (BILLING R18), else None.
    """

    token_ids: tuple[int, ...]
    params: SamplingParams
    num_choices: int
    max_tokens: int
    clamped_max_tokens: int | None

    @property
    def prompt_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def admission(self) -> Admission:
        return Admission(self.prompt_tokens, self.clamped_max_tokens)

    async def engine_requests(self, labels: RequestLabels) -> Sequence[AddRequest | EmbedRequest]:
        return self.constrained(labels, None)

    def constrained(self, labels: RequestLabels, constraint: CompiledConstraint | None) -> list[AddRequest]:
        """Return one request a choice, whose text must match `constraint`."""
        request = AddRequest(
            request_id=labels.request_id,
            prompt=self.token_ids,
            params=self.params,
            max_tokens=self.max_tokens,
            tenant=labels.tenant,
            cache_scope=labels.cache_scope,
            session=labels.session,
            traffic_class=labels.traffic_class,
            max_compute_ms=labels.max_compute_ms,
            constraint=constraint,
            group=labels.group,
        )
        return copies(request, self.num_choices)


def copies(request: AddRequest, num_choices: int) -> list[AddRequest]:
    """Return requests that differ in their ids, and in their seeds if one was given."""
    if num_choices == 1:
        return [request]
    return [
        replace(request, request_id=f"{request.request_id}.{index}", params=request.params.for_choice(index))
        for index in range(num_choices)
    ]


def completion_limits(
    deployment: Deployment, num_tokens: int, asked: int | None, max_output_tokens: int | None, param: str
) -> tuple[int, int | None]:
    """Return `max_tokens` of a prompt, and the same again if that is less than `asked`, else None (BILLING R18).

    Args:
        asked: limit that the caller named; None: the deployment's default.
        max_output_tokens: most that the caller's tier allows; None: any.
        param: field of the prompt.

    Raises:
        ContextLengthError: the prompt leaves no room for one token.
    """
    max_context = deployment.replica.max_context
    room = max_context - num_tokens
    if room < 1:  # of token ids, which nothing has counted before
        raise too_long(max_context, str(num_tokens), param)
    most = room if max_output_tokens is None else min(room, max_output_tokens)
    max_tokens = min(asked if asked is not None else deployment.default_max_tokens, most)
    return max_tokens, max_tokens if asked is not None and max_tokens < asked else None


def check_num_logprobs(num_tokens: int, params: SamplingParams, *, most: int, param: str) -> None:
    """Raise InvalidRequestError if the log-probabilities of a prompt are too many for an answer.

    Args:
        most: numbers that the prompt may have of them.
        param: field that asks for them.
    """
    if params.prompt_logprobs is None:
        return
    num_numbers = num_tokens * (1 + params.prompt_logprobs)
    if num_numbers > most:
        raise InvalidRequestError(
            f"'{param}' asks for {num_numbers} log-probabilities of a prompt of {num_tokens} tokens; this answer has "
            f"room for {most}. Shorten the prompt, send fewer prompts at once, or ask for fewer alternatives.",
            param=param,
            code="invalid_value",
        )


def encoded(
    replica: LocalReplica,
    segments: Sequence[Segment],
    param: str,
    check: Check | None,
    *,
    add_bos: bool = True,
    room: int = 1,
) -> tuple[int, ...]:
    """Return the tokens of a prompt, which is not tokenised further than a context is long.

    Args:
        room: tokens that the context must have beside it.

    Raises:
        InvalidRequestError: it takes too much time, or the model's vocabulary cannot write it.
        ContextLengthError: it is too long.
    """
    most = replica.max_context - room
    try:
        token_ids = tuple(replica.tokenizer.encode(segments, EncodeLimits(most, check), add_bos=add_bos))
    except InvalidRequestError as error:
        error.param = error.param or param
        raise
    if len(token_ids) > most:
        raise too_long(replica.max_context, f"at least {len(token_ids)}", param)
    return token_ids


def check_token_ids(token_ids: Sequence[int], num_vocab: int, param: str) -> None:
    """Raise InvalidRequestError for a token id that the model does not have."""
    for token_id in token_ids:
        if not 0 <= token_id < num_vocab:
            raise InvalidRequestError(
                f"'{param}' holds token {token_id}; this model has tokens 0 to {num_vocab - 1}.",
                param=param,
                code="invalid_value",
            )


def too_long(max_context: int, num_tokens: str, param: str) -> ContextLengthError:
    return ContextLengthError(
        f"This model's maximum context length is {max_context} tokens, and at least one of them is needed for the "
        f"completion. However, your {param} resulted in {num_tokens} tokens. Please shorten it.",
        param=param,
    )


def no_tokens(param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"'{param}' comes to no token at all in this model's vocabulary: send some text that it knows.",
        param=param,
        code="invalid_value",
    )
