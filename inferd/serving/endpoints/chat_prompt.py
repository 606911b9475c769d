"""Prompts of chats: rendered by the model's template, tokenised, with the constraint that the answer must match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from inferd.chat.dialects.spec import ReasoningState
from inferd.chat.format import ChatPrompt
from inferd.constraint import Constraint
from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.serving.completion import Admission
from inferd.serving.endpoints.constraints import compiled_constraint
from inferd.serving.endpoints.endpoint import RequestLabels
from inferd.serving.endpoints.prompt import (
    MAX_PROMPT_LOGPROBS,
    PreparedPrompt,
    check_num_logprobs,
    completion_limits,
    encoded,
    no_tokens,
    too_long,
)
from inferd.tokenizer import Check
from inferd.wire.field_names import OWN_NAMES, FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest

_CONTROL_TOKEN_BYTES = 64
"""No control token's text has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedChat(PreparedPrompt):
    """Chat in the engine's terms.

    Attributes:
        reasoning: whether the answer may begin with reasoning.
        constraint: what the answer must match; None: any text.
    """

    chat: ChatRequest
    replica: LocalReplica
    reasoning: ReasoningState
    constraint: Constraint | None

    @property
    def admission(self) -> Admission:
        return Admission(self.prompt_tokens, self.clamped_max_tokens, self.reasoning is ReasoningState.OPEN)

    async def engine_requests(self, labels: RequestLabels) -> Sequence[AddRequest | EmbedRequest]:
        return self.constrained(labels, await self.compile(labels))

    async def compile(self, labels: RequestLabels) -> CompiledConstraint | None:
        """Compile the constraint. Raises as `compiled_constraint` does."""
        make = self.replica.chat_format.constraint
        loosened = partial(make, self.chat, self.reasoning)
        return await compiled_constraint(self.constraint, loosened, self.replica.constraints, labels)


def prepare_chat(
    chat: ChatRequest, deployment: Deployment, max_output_tokens: int | None, check: Check | None
) -> PreparedChat:
    """Render and tokenise a chat, see `Endpoint.prepare`."""
    chat.check_vocabulary(deployment.replica.tokenizer.n_vocab)
    return prepared_chat(chat, deployment, max_output_tokens, chat_tokens(chat, deployment.replica, check))


def prepared_chat(
    chat: ChatRequest,
    deployment: Deployment,
    max_output_tokens: int | None,
    prompt: tuple[tuple[int, ...], ReasoningState],
) -> PreparedChat:
    """Return a chat whose prompt was tokenised, as `chat_tokens` returns it."""
    replica = deployment.replica
    token_ids, reasoning = prompt
    params = chat.sampling_params()
    check_num_logprobs(len(token_ids), params, most=MAX_PROMPT_LOGPROBS, param="prompt_logprobs")
    constraint = replica.chat_format.constraint(chat, reasoning)
    max_tokens, clamped = completion_limits(
        deployment, len(token_ids), chat.completion_limit, max_output_tokens, "messages"
    )
    return PreparedChat(
        token_ids=token_ids,
        params=params,
        num_choices=chat.num_choices,
        max_tokens=max_tokens,
        clamped_max_tokens=clamped,
        chat=chat,
        replica=replica,
        reasoning=reasoning,
        constraint=constraint,
    )


def chat_tokens(
    chat: ChatRequest, replica: LocalReplica, check: Check | None = None, *, add_bos: bool = True
) -> tuple[tuple[int, ...], ReasoningState]:
    """Return the tokens of the rendered messages, and whether the answer may begin with reasoning. Raises
    InvalidRequestError, ContextLengthError."""
    prompt = rendered_chat(chat, replica)
    token_ids = encoded(replica, prompt.segments, "messages", check, add_bos=add_bos)
    if not token_ids:
        raise no_tokens("messages")
    return token_ids, prompt.reasoning


def rendered_chat(chat: ChatRequest, replica: LocalReplica) -> ChatPrompt:
    """Return the rendered messages. Raises InvalidRequestError, ContextLengthError."""
    longest = replica.tokenizer.max_token_bytes
    _check_bytes(sum(len(message.text().encode()) for message in chat.messages), longest, replica)
    prompt = replica.chat_format.prompt(chat)
    num_bytes = sum(len(segment.text.encode()) for segment in prompt.segments)
    _check_bytes(num_bytes, max(longest, _CONTROL_TOKEN_BYTES), replica)
    return prompt


def record_unheard(
    chat: ChatRequest, replica: LocalReplica, ignored: IgnoredFields, names: FieldNames = OWN_NAMES
) -> None:
    """Record the fields that the model's chat template is not told. Raises InvalidRequestError if strict."""
    if replica.is_ready and replica.chats:
        if replica.chat_format.strips_line(chat):
            ignored.add(names.of("messages[0].content"), "begins with a line for accounting, which is removed")
        for path in replica.chat_format.unheard(chat):
            ignored.add(names.of(path), "has no effect: this model's chat template cannot be told")


def _check_bytes(num_bytes: int, max_token_bytes: int, replica: LocalReplica) -> None:
    """Raise ContextLengthError for a prompt that is certainly too long. Before rendering, and again before tokenising,
    when tools and calls are in it: tokenising 8 MB takes seconds of a core and gigabytes."""
    least_tokens = -(-num_bytes // max_token_bytes)
    if least_tokens >= replica.max_context:
        raise too_long(replica.max_context, f"at least {least_tokens}", "messages")
