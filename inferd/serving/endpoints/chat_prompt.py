"""Prompts of chats: rendered by the model's template, tokenised, with the constraint that the answer must match."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from inferd.chat.dialects.spec import ReasoningState
from inferd.chat.schemas.reader import SchemaDetail
from inferd.constraint import Constraint, ConstraintKind
from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.grammar.compiler import GrammarError
from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.engine.grammar.trial import TOO_COMPLEX
from inferd.engine.messages import AddRequest, EmbedRequest, TrafficClass
from inferd.errors import InvalidRequestError
from inferd.serving.completion import Admission
from inferd.serving.endpoints.endpoint import RequestLabels
from inferd.serving.endpoints.prompt import PreparedPrompt, completion_limits, encoded, no_tokens, too_long
from inferd.tokenizer import Check
from inferd.wire.field_names import OWN_NAMES, FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest

MAX_REASON_CHARACTERS = 500
MAX_PATH_CHARACTERS = 200
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
        """Compile the constraint. Schemas that are not strict, and are refused together, are tried again with less of
        them.

        Raises:
            InvalidRequestError: the constraint cannot be enforced.
            OverloadedError, RateLimitError: see ConstraintCompiler.compile.
        """
        constraint = self.constraint
        if constraint is None:
            return None
        for looser in (SchemaDetail.SHAPE, SchemaDetail.ANY):
            try:
                return await self._compiled(constraint, labels)
            except InvalidRequestError:
                if constraint.faults:
                    raise
                make = self.replica.chat_format.constraint
                less = await asyncio.to_thread(make, self.chat, self.reasoning, looser)
                if less is None or (less == constraint and looser is SchemaDetail.ANY):
                    raise
                constraint = less
        return await self._compiled(constraint, labels)

    async def _compiled(self, constraint: Constraint, labels: RequestLabels) -> CompiledConstraint:
        is_batch = labels.traffic_class is TrafficClass.BATCH
        try:
            return await self.replica.constraints.compile(constraint, labels.tenant, is_batch=is_batch)
        except GrammarError as error:
            raise refused(constraint, error) from error


def refused(constraint: Constraint, error: GrammarError) -> InvalidRequestError:
    """Return the refusal of a constraint in the caller's terms. It names the path of its first fault, else that of the
    schema at fault, else the field that the constraint came in."""
    is_own = constraint.kind in (ConstraintKind.REGEX, ConstraintKind.LARK, ConstraintKind.GRAMMAR)
    is_own = is_own and not constraint.schemas and constraint.param != "tools"
    reason = error.reason[:MAX_REASON_CHARACTERS]
    if constraint.faults:
        fault = constraint.faults[0]
        param = _one_line(fault.path)
        message = f"The JSON schema cannot be enforced: '{param}' {fault.why}. Change it, or leave it out."
    elif is_own:
        param = constraint.param
        message = f"The grammar in '{param}' cannot be enforced: {reason}"
    else:
        param = error.path or constraint.param
        if constraint.kind is ConstraintKind.LARK and error.path is None:
            # The reason would quote a grammar that the caller did not write.
            reason = reason if reason == TOO_COMPLEX else "its schemas are too complex together; make them smaller"
        message = f"The JSON schema in '{param}' cannot be enforced: {reason}"
    return InvalidRequestError(message, param=param, code="invalid_grammar" if is_own else "invalid_json_schema")


def _one_line(path: str) -> str:
    line = " ".join(path.split())
    return line if len(line) <= MAX_PATH_CHARACTERS else line[: MAX_PATH_CHARACTERS - 3] + "..."


def prepare_chat(
    chat: ChatRequest, deployment: Deployment, max_output_tokens: int | None, check: Check | None
) -> PreparedChat:
    """Render and tokenise a chat, see `Endpoint.prepare`."""
    replica = deployment.replica
    chat.check_vocabulary(replica.tokenizer.n_vocab)
    token_ids, reasoning = chat_tokens(chat, replica, check)
    constraint = replica.chat_format.constraint(chat, reasoning)
    max_tokens, clamped = completion_limits(
        deployment, len(token_ids), chat.completion_limit, max_output_tokens, "messages"
    )
    return PreparedChat(
        token_ids=token_ids,
        params=chat.sampling_params(),
        num_choices=chat.num_choices,
        max_tokens=max_tokens,
        clamped_max_tokens=clamped,
        chat=chat,
        replica=replica,
        reasoning=reasoning,
        constraint=constraint,
    )


def chat_tokens(
    chat: ChatRequest, replica: LocalReplica, check: Check | None = None
) -> tuple[tuple[int, ...], ReasoningState]:
    """Return the tokens of the rendered messages, and whether the answer may begin with reasoning. Raises
    InvalidRequestError, ContextLengthError."""
    longest = replica.tokenizer.max_token_bytes
    _check_bytes(sum(len(message.text().encode()) for message in chat.messages), longest, replica)
    prompt = replica.chat_format.prompt(chat)
    num_bytes = sum(len(segment.text.encode()) for segment in prompt.segments)
    _check_bytes(num_bytes, max(longest, _CONTROL_TOKEN_BYTES), replica)
    token_ids = encoded(replica, prompt.segments, "messages", check)
    if not token_ids:
        raise no_tokens("messages")
    return token_ids, prompt.reasoning


def record_unheard(
    chat: ChatRequest, replica: LocalReplica, ignored: IgnoredFields, names: FieldNames = OWN_NAMES
) -> None:
    """Record the fields that the model's chat template cannot be told. Raises InvalidRequestError if strict."""
    if replica.is_ready and replica.chats:
        for path in replica.chat_format.unheard(chat):
            ignored.add(names.of(path), "has no effect: this model's chat template cannot be told")


def _check_bytes(num_bytes: int, max_token_bytes: int, replica: LocalReplica) -> None:
    """Raise ContextLengthError for a prompt that is certainly too long. Before rendering, and again before tokenising,
    when tools and calls are in it: tokenising 8 MB takes seconds of a core and gigabytes."""
    least_tokens = -(-num_bytes // max_token_bytes)
    if least_tokens >= replica.max_context:
        raise too_long(replica.max_context, f"at least {least_tokens}", "messages")
