"""`POST /v1/completions`, OpenAI's legacy text completions: the body as a checked, typed request, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec

from inferd.sampling_params import SamplingParams
from inferd.wire.errors import invalid, shorten, unsupported_field, unsupported_value
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.chat_response import RunningUsage, TextFinishReason, Timings, UsageBody, UsageCounts
from inferd.wire.openai.logprobs import TextLogprobs
from inferd.wire.openai.prompt_logprobs import PromptLogprobs, check_prompt_logprobs
from inferd.wire.openai.request_fields import (
    ASKS_FOR_NOTHING,
    CompletionFields,
    TextInput,
    check_constraints,
    check_limits,
    check_model,
    check_num_alternatives,
    check_num_choices,
    check_one_kind,
    check_sampling,
    check_stream_options,
    check_tags,
    check_without_effect,
    inputs_of,
)

_NO_CHOICES = b'"choices":[]'  # occurs in no string, whose quotes are escaped
MAX_PROMPTS = 64
MAX_CHOICES = 128
"""Choices of all prompts together."""

UNSUPPORTED = ("bad_words",)
_TAGS = ("user", "prompt_cache_key", "prompt_cache_isolation_key", "cache_salt")


class TextRequest(CompletionFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Text completion's request as it came; the properties are valid once `parse_text_request` has checked it."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    logprobs: int | None = None

    # Values that ask for anything but the default are refused.
    best_of: int | None = None
    suffix: str | None = None

    # Known, so that they are refused and not ignored: the caller would get another text than it asked for.
    bad_words: Any = None

    def sampling_params(self) -> SamplingParams:
        """Return the sampling, with the numbers of alternatives to report for each token."""
        shown = (self.shown_prompt_logprobs, self.logprobs if self.echo else None)
        return replace(
            super().sampling_params(),
            top_logprobs=self.logprobs,
            prompt_logprobs=max((number for number in shown if number is not None), default=None),
        )

    @property
    def echoes_logprobs(self) -> bool:
        """Whether the log-probabilities of the prompt stand before those of the completion."""
        return bool(self.echo) and self.logprobs is not None

    def prompts(self) -> list[TextInput]:
        """Return the prompts, at least one; each is a request of its own to the engine and the ledger."""
        return inputs_of("prompt", self.prompt)


_DECODER = msgspec.json.Decoder(TextRequest)


def parse_text_request(body: bytes, ignored: IgnoredFields | None = None) -> TextRequest:
    """Decode and check the body of a text completion.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field; checks that depend on the model come later.
    """
    ignored = ignored or IgnoredFields()
    request = decode(body, _DECODER, ignored)
    for field in UNSUPPORTED:
        if getattr(request, field) not in ASKS_FOR_NOTHING:
            raise unsupported_field(
                field, f"'{field}' is not supported for text completions; use chat completions, or leave it out."
            )
    check_model(request.model)
    check_stream_options(request, ignored)
    check_limits(request, ignored, may_be_0=bool(request.echo) or request.prompt_logprobs is not None)
    check_constraints(request)
    _check_prompt(request.prompt)
    _check_choices(request)
    check_num_alternatives("logprobs", request.logprobs)
    check_prompt_logprobs(request, ignored)
    if request.echoes_logprobs and request.streamed and request.num_choices > 1:
        raise unsupported_value(
            "n", "'n' must be 1 in a stream with 'echo' and 'logprobs': the choices share one prompt. Leave it out."
        )
    if request.suffix:
        raise unsupported_value("suffix", "'suffix' is not supported: text cannot be inserted before it. Leave it out.")
    check_sampling(request)
    check_without_effect(request, ignored)
    check_tags(request, _TAGS)
    return request


def _check_prompt(prompt: str | list[str | int | list[int]]) -> None:
    if prompt == [] or (isinstance(prompt, list) and [] in prompt):
        raise invalid("prompt", "'prompt' is empty: send text or token ids.")
    if isinstance(prompt, str):
        return
    check_one_kind("prompt", prompt)
    if not isinstance(prompt[0], int) and len(prompt) > MAX_PROMPTS:
        raise invalid("prompt", f"'prompt' may hold at most {MAX_PROMPTS} prompts, got {len(prompt)}.")


def _check_choices(request: TextRequest) -> None:
    """Raise InvalidRequestError unless all answers that are computed are shown: `best_of` is `n` or left out."""
    check_num_choices(request.n)
    n, best_of = request.num_choices, request.best_of
    if best_of is not None and best_of < n:
        raise invalid("best_of", f"'best_of' must be at least 'n', {n}, got {shorten(str(best_of))}.")
    if best_of is not None and best_of > n:
        raise unsupported_value(
            "best_of", "'best_of' must be 'n', or left out: every answer that is computed is shown here."
        )
    num_all = n * len(request.prompts())
    if num_all > MAX_CHOICES:
        raise invalid("n", f"'n' times the number of prompts may be at most {MAX_CHOICES}, got {num_all}.")


class TextChoice(msgspec.Struct, frozen=True):
    """A choice; `index` counts the choices of the first prompt, then those of the second, and so on.

    Attributes:
        prompt_logprobs: there if the request asked for them; all choices of a prompt have the same.
    """

    text: str
    index: int
    finish_reason: TextFinishReason | None = None
    logprobs: TextLogprobs | msgspec.UnsetType | None = None
    prompt_logprobs: PromptLogprobs | msgspec.UnsetType = msgspec.UNSET


class TextCompletion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    system_fingerprint: str
    usage: UsageCounts | msgspec.UnsetType | None = msgspec.UNSET
    timings: Timings | msgspec.UnsetType = msgspec.UNSET


class TextResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Encoder of the answer to one request. Chunks of a stream have the shape of the whole, with a piece of the text.

    Attributes:
        id: `cmpl-...`.
        created: Unix time in seconds.
        include_usage: whether the caller asked for a usage chunk.
        running: usage so far, which each chunk shows; None if the caller did not ask for it.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    include_usage: bool = False
    running: RunningUsage | None = None

    def count(self, num_tokens: int) -> None:
        """Count tokens of a chunk that comes next."""
        if self.running is not None:
            self.running.completion_tokens += num_tokens

    def whole(self, choices: Sequence[bytes], usage: UsageBody, timings: Timings | None) -> bytes:
        """Return the whole answer; each choice is encoded."""
        before, after = self._encode([], usage, timings).split(_NO_CHOICES, maxsplit=1)
        return before + _NO_CHOICES[:-1] + b",".join(choices) + _NO_CHOICES[-1:] + after

    def chunk(self, choice: TextChoice) -> bytes:
        running = None if self.running is None else self.running.body()
        return self._encode([choice], running if self.include_usage else msgspec.UNSET)

    def last_chunk(self, choices: list[TextChoice], usage: UsageBody | None, timings: Timings | None) -> bytes:
        """Return the last chunk before `[DONE]`: that of the usage, or the last finish reason."""
        return self._encode(choices, msgspec.UNSET if usage is None else usage, timings)

    def _encode(
        self,
        choices: list[TextChoice],
        usage: UsageCounts | msgspec.UnsetType | None,
        timings: Timings | None = None,
    ) -> bytes:
        return msgspec.json.encode(
            TextCompletion(
                id=self.id,
                created=self.created,
                model=self.model,
                choices=choices,
                system_fingerprint=self.system_fingerprint,
                usage=usage,
                timings=msgspec.UNSET if timings is None else timings,
            )
        )
