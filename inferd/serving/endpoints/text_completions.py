"""`/v1/completions`: OpenAI's legacy API. Each prompt is a request of its own, with `n` choices and its own hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from inferd.chat.constraint import text_constraint
from inferd.constraint import Constraint
from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.grammar.compiler import ConstraintCompiler
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.errors import InvalidRequestError
from inferd.sampling_params import SamplingParams
from inferd.serving.completion import Admission
from inferd.serving.endpoints.cache_hints import CacheHints
from inferd.serving.endpoints.constraints import compiled_constraint
from inferd.serving.endpoints.endpoint import Call, Endpoint, RequestLabels
from inferd.serving.endpoints.prompt import (
    MAX_PROMPT_LOGPROBS,
    PreparedPrompt,
    check_num_logprobs,
    check_token_ids,
    completion_limits,
    encoded,
    no_tokens,
    too_long,
)
from inferd.serving.endpoints.text_writer import PromptWriter, TextWriter
from inferd.tokenizer import Check, Segment
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_response import RunningUsage
from inferd.wire.openai.request_fields import TextInput
from inferd.wire.openai.text_completions import (
    TextRequest,
    TextResponse,
    parse_text_request,
)


class TextCompletions(Endpoint):
    """Call of `POST /v1/completions`."""

    path = "/v1/completions"
    name = "text_completions"

    def __init__(self, asked: TextRequest) -> None:
        self._asked = asked
        self._prompts = asked.prompts()
        self.num_requests = len(self._prompts)

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_text_request(body, ignored))

    @property
    def model(self) -> str:
        return self._asked.model

    @property
    def streamed(self) -> bool:
        return self._asked.streamed

    @property
    def cache_hints(self) -> CacheHints:
        return CacheHints.of(self._asked)

    def check_line(self) -> None:
        super().check_line()
        if self.num_requests > 1:
            raise InvalidRequestError(
                f"A line of a batch has one prompt, this one has {self.num_requests}: give each a line of its own.",
                param="prompt",
                code="unsupported_value",
            )

    def check_model(self, deployment: Deployment) -> None:
        deployment.check_makes_text()

    def prepare(
        self, number: int, deployment: Deployment, max_output_tokens: int | None = None, *, check: Check | None = None
    ) -> PreparedPrompt:
        prompt, replica = self._prompts[number], deployment.replica
        self._asked.check_vocabulary(replica.tokenizer.n_vocab)
        token_ids = prompt_tokens(prompt, replica, check)
        limits = completion_limits(
            deployment, len(token_ids), self._asked.completion_limit, max_output_tokens, prompt.param
        )
        params, own = self._asked.sampling_params(), self._asked.constraint
        self._check_num_logprobs(len(token_ids), params)
        if own is None:
            return PreparedPrompt(token_ids, params, self._asked.num_choices, *limits)
        whole = text_constraint(own)
        return ConstrainedPrompt(token_ids, params, self._asked.num_choices, *limits, own, whole, replica.constraints)

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> TextWriter:
        response = TextResponse(
            id=call.answer_id("cmpl-"),
            created=int(time.time()),
            model=call.deployment.name,
            system_fingerprint=call.deployment.replica.fingerprint,
            include_usage=self._asked.include_usage,
            running=RunningUsage(admission.prompt_tokens) if self._asked.runs_usage else None,
        )
        bytes_of = call.deployment.replica.tokenizer.token_bytes
        prompts = [PromptWriter(self._asked, self._echo(prompt, call.deployment), bytes_of) for prompt in self._prompts]
        shows_logprobs = self._asked.logprobs is not None
        return TextWriter(response, prompts, self._asked.num_choices, shows_logprobs=shows_logprobs, streamed=streamed)

    def _check_num_logprobs(self, num_tokens: int, params: SamplingParams) -> None:
        """Raise InvalidRequestError if the log-probabilities of a prompt are more than its part of an answer: each of
        its choices shows them."""
        most = MAX_PROMPT_LOGPROBS // (self.num_requests * self._asked.num_choices)
        param = "logprobs" if self._asked.shown_prompt_logprobs is None else "prompt_logprobs"
        check_num_logprobs(num_tokens, params, most=most, param=param)

    def _echo(self, prompt: TextInput, deployment: Deployment) -> str:
        """Return the text before the completions of a prompt: the prompt itself, if the request asks for it."""
        if not self._asked.echo:
            return ""
        content = prompt.content
        return content if isinstance(content, str) else deployment.replica.tokenizer.decode(content)


@dataclass(frozen=True, slots=True)
class ConstrainedPrompt(PreparedPrompt):
    """Prompt whose completion must match a constraint.

    Attributes:
        own: constraint as the caller gave it.
        whole: the same, with all of its schema that can be enforced.
    """

    own: Constraint
    whole: Constraint
    compiler: ConstraintCompiler

    async def engine_requests(self, labels: RequestLabels) -> Sequence[AddRequest | EmbedRequest]:
        loosened = partial(text_constraint, self.own)
        return self.constrained(labels, await compiled_constraint(self.whole, loosened, self.compiler, labels))


def prompt_tokens(prompt: TextInput, replica: LocalReplica, check: Check | None) -> tuple[int, ...]:
    """Return a prompt's tokens. Control tokens in a text are read as such, and BOS comes first if the vocabulary asks
    for it and the text does not bring it. Token ids are taken as they are.

    Raises:
        InvalidRequestError: no token at all, or one that the model does not have.
        ContextLengthError: it is certainly too long.
    """
    if isinstance(prompt.content, str):
        least_tokens = -(-len(prompt.content.encode()) // replica.tokenizer.max_token_bytes)
        if least_tokens >= replica.max_context:
            raise too_long(replica.max_context, f"at least {least_tokens}", prompt.param)
        token_ids = encoded(replica, [Segment(prompt.content, special=True)], prompt.param, check)
    else:
        token_ids = prompt.content
        check_token_ids(token_ids, replica.tokenizer.n_vocab, prompt.param)
    if not token_ids:
        raise no_tokens(prompt.param)
    return token_ids
