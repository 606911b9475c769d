"""What a chat request comes to before anything is promised: its prompt's tokens and its completion limit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from inferd.chat.dialects.spec import ReasoningState
from inferd.chat.schemas.reader import SchemaDetail
from inferd.constraint import Constraint
from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.errors import InvalidRequestError
from inferd.sampling_params import SamplingParams
from inferd.serving.endpoints.embedding_admission import PreparedInputs, prepare_inputs
from inferd.serving.endpoints.text_admission import encoded, prompt_tokens, too_long
from inferd.tokenizer import Check
from inferd.wire.field_names import OWN_NAMES, FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.embeddings import EmbeddingRequest
from inferd.wire.openai.text_completions import TextPrompt

_CONTROL_TOKEN_BYTES = 64
"""No control token is written with more of them."""


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """A request in the engine's terms.

    Attributes:
        max_tokens: the engine's stop and the size of the hold (BILLING R4).
        reasoning: whether the answer may begin with reasoning.
        clamped_max_tokens: `max_tokens` if it is less than the caller asked for (BILLING R18), else None.
    """

    token_ids: tuple[int, ...]
    params: SamplingParams
    max_tokens: int
    clamped_max_tokens: int | None
    reasoning: ReasoningState
    constraint: Constraint | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def in_reasoning(self) -> bool:
        """Whether the prompt ends in the opening of the model's reasoning."""
        return self.reasoning is ReasoningState.OPEN


async def compile_constraint(
    request: ChatRequest | TextPrompt | EmbeddingRequest,
    prompt: PreparedPrompt | PreparedInputs,
    replica: LocalReplica,
    team: str,
    *,
    is_batch: bool,
) -> CompiledConstraint | None:
    """Compile what the answer must match. Schemas that are not strict, and are refused together, are tried again with
    less of them.

    Raises:
        InvalidRequestError, OverloadedError, RateLimitError: see ConstraintCompiler.compile.
    """
    constraint = prompt.constraint
    if constraint is None:
        return None
    for looser in (SchemaDetail.SHAPE, SchemaDetail.ANY):
        try:
            return await replica.constraints.compile(constraint, team, is_batch=is_batch)
        except InvalidRequestError:
            if constraint.faults or not (isinstance(prompt, PreparedPrompt) and isinstance(request, ChatRequest)):
                raise
            make = replica.chat_format.constraint
            less = await asyncio.to_thread(make, request, prompt.reasoning, looser)
            if less is None or (less == constraint and looser is SchemaDetail.ANY):
                raise
            constraint = less
    return await replica.constraints.compile(constraint, team, is_batch=is_batch)


def check_capability(request: ChatRequest | TextPrompt | EmbeddingRequest, deployment: Deployment) -> None:
    """Raises InvalidRequestError if the model is not for such requests. It is ready."""
    if isinstance(request, ChatRequest):
        deployment.check_chats()
    elif isinstance(request, TextPrompt):
        deployment.check_makes_text()


def record_unheard(
    request: ChatRequest | TextPrompt | EmbeddingRequest,
    replica: LocalReplica,
    ignored: IgnoredFields,
    names: FieldNames = OWN_NAMES,
) -> None:
    """Record the fields that the model's chat template cannot be told. Raises InvalidRequestError if strict."""
    if isinstance(request, ChatRequest) and replica.is_ready and replica.chats:
        for path in replica.chat_format.unheard(request):
            ignored.add(names.of(path), "has no effect: this model's chat template cannot be told")


def prepare(
    request: ChatRequest | TextPrompt | EmbeddingRequest,
    deployment: Deployment,
    max_output_tokens: int | None = None,
    *,
    check: Check | None = None,
) -> PreparedPrompt | PreparedInputs:
    """Renders, if it is a chat, and tokenises; takes milliseconds of CPU, so it runs on a worker thread.

    Args:
        max_output_tokens: the most completion tokens that the caller's tier allows (BILLING R18); None: any.
        check: called before each step that takes time; raises if the request is no longer wanted.

    Raises:
        InvalidRequestError: the template refuses the messages, or logit_bias names no token.
        ContextLengthError: the prompt leaves no room for even one token.
    """
    replica = deployment.replica
    if isinstance(request, EmbeddingRequest):
        return prepare_inputs(request, replica, check)
    fields = request.request if isinstance(request, TextPrompt) else request
    fields.check_vocabulary(replica.tokenizer.n_vocab)
    if isinstance(request, TextPrompt):
        token_ids, param = prompt_tokens(request, replica, check), request.param
        reasoning, constraint = ReasoningState.OFF, None
    else:
        (token_ids, reasoning), param = chat_tokens(request, replica, check), "messages"
        constraint = replica.chat_format.constraint(request, reasoning)
    room = replica.max_context - len(token_ids)
    if room < 1:  # of token ids, which nothing has counted before
        raise too_long(replica.max_context, str(len(token_ids)), param)
    asked = request.completion_limit
    most = room if max_output_tokens is None else min(room, max_output_tokens)
    max_tokens = min(asked if asked is not None else deployment.default_max_tokens, most)
    return PreparedPrompt(
        token_ids=token_ids,
        params=fields.sampling_params(),
        max_tokens=max_tokens,
        clamped_max_tokens=max_tokens if asked is not None and max_tokens < asked else None,
        reasoning=reasoning,
        constraint=constraint,
    )


def chat_tokens(
    request: ChatRequest, replica: LocalReplica, check: Check | None = None
) -> tuple[tuple[int, ...], ReasoningState]:
    """Return the rendered messages, and whether the answer may begin with reasoning. Raises
    InvalidRequestError, ContextLengthError."""
    longest = replica.tokenizer.max_token_bytes
    _refuse_hopeless(sum(len(message.text().encode()) for message in request.messages), longest, replica)
    prompt = replica.chat_format.prompt(request)
    n_bytes = sum(len(segment.text.encode()) for segment in prompt.segments)
    _refuse_hopeless(n_bytes, max(longest, _CONTROL_TOKEN_BYTES), replica)
    token_ids = encoded(replica, prompt.segments, "messages", check)
    if not token_ids:
        raise InvalidRequestError(
            "The messages come to no token at all in this model's vocabulary: send some text that it knows.",
            param="messages",
            code="invalid_value",
        )
    return token_ids, prompt.reasoning


def _refuse_hopeless(n_bytes: int, max_token_bytes: int, replica: LocalReplica) -> None:
    """Refuses what is certainly too long before it is rendered, and again before it is tokenised, when tools and calls
    are in it: 8 MB would take seconds of a core and gigabytes, for nothing."""
    least_tokens = -(-n_bytes // max_token_bytes)
    if least_tokens >= replica.max_context:
        raise too_long(replica.max_context, f"at least {least_tokens}", "messages")
