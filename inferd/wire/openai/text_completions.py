"""`POST /v1/completions`, OpenAI's legacy text completions: the body as a checked, typed request, and the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from inferd.errors import InvalidRequestError
from inferd.price import ServiceTier
from inferd.sampling_params import SamplingParams
from inferd.wire.errors import invalid, shorten, unsupported_value
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.chat_request import (
    ASKS_FOR_NOTHING,
    N_MAX,
    TOP_LOGPROBS_MAX,
    StreamOptions,
    check_limit,
    check_stream_options,
)
from inferd.wire.openai.chat_response import TextFinishReason, UsageBody
from inferd.wire.openai.logprobs import TextLogprobs
from inferd.wire.openai.sampling_fields import SamplingFields, check_sampling

PROMPTS_MAX = 64
CHOICES_MAX = 128
"""Of all prompts together."""
TAG_CHARACTERS_MAX = 512

UNSUPPORTED = (
    "allowed_token_ids",
    "bad_words",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "response_format",
    "structured_outputs",
)
_TAGS = ("model", "user", "prompt_cache_key", "prompt_cache_isolation_key", "cache_salt")


class TextRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text completion's request as it came, once `parse_text_request` has checked it."""

    model: str
    prompt: str | list[str | int | list[int]]

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    echo: bool | None = None
    n: int | None = None
    logprobs: int | None = None

    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_isolation_key: str | None = None
    cache_salt: str | None = None

    # Only the values that ask for nothing else than what is done anyway.
    best_of: int | None = None
    suffix: str | None = None

    # Known, so that they are refused and not ignored: the text would be another one than was asked for.
    allowed_token_ids: Any = None
    bad_words: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    response_format: Any = None
    structured_outputs: Any = None

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def n_choices(self) -> int:
        """Of each prompt."""
        return self.n or 1

    @property
    def isolation_key(self) -> str | None:
        """Prefixes are shared only with requests that have the same one."""
        return self.prompt_cache_isolation_key or self.cache_salt

    def sampling_params(self) -> SamplingParams:
        """As the fields of sampling say; and whether their probabilities are wanted."""
        return replace(super().sampling_params(), top_logprobs=self.logprobs)

    def prompts(self) -> list[TextPrompt]:
        """At least one; each is answered by choices of its own."""
        if isinstance(self.prompt, str):
            return [TextPrompt(self, self.prompt, "prompt")]
        if isinstance(self.prompt[0], int):
            return [TextPrompt(self, _token_ids(self.prompt), "prompt")]
        return [
            TextPrompt(self, _token_ids(item) if isinstance(item, list) else str(item), f"prompt[{index}]")
            for index, item in enumerate(self.prompt)
        ]


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """One prompt of a request: text in the model's own words, control tokens included, or token ids.

    Attributes:
        param: where it stands in the request.
    """

    request: TextRequest
    content: str | tuple[int, ...]
    param: str

    @property
    def n_choices(self) -> int:
        """Other prompts of the request are requests of their own to the engine and the ledger."""
        return self.request.n_choices

    @property
    def completion_limit(self) -> int | None:
        """Most completion tokens that the caller asked for, or None if it named no limit."""
        limit = self.request.max_tokens
        return None if limit is None or limit < 0 else limit

    @property
    def tier(self) -> ServiceTier:
        """OpenAI's legacy endpoint has no others."""
        return ServiceTier.DEFAULT


_DECODER = msgspec.json.Decoder(TextRequest)


def parse_text_request(body: bytes, ignored: IgnoredFields | None = None) -> TextRequest:
    """Decoded and checked; `ignored` takes down what has no effect. Raises InvalidRequestError with `param` naming the
    field; what depends on the model comes later."""
    ignored = ignored or IgnoredFields()
    request = decode(body, _DECODER, ignored)
    for field in UNSUPPORTED:
        if getattr(request, field) not in ASKS_FOR_NOTHING:
            raise InvalidRequestError(
                f"'{field}' is not supported for text completions; use chat completions, or leave it out.",
                param=field,
                code="unsupported_parameter",
            )
    if not request.model:
        raise invalid("model", "'model' is empty: name a model, see GET /v1/models.")
    check_stream_options(request.stream_options, ignored, streamed=request.streamed)
    check_limit("max_tokens", request.max_tokens, ignored)
    _check_prompt(request.prompt)
    _check_choices(request)
    _check_logprobs(request)
    if request.suffix:
        raise unsupported_value("suffix", "Text cannot be inserted before a 'suffix' here; leave it out.")
    check_sampling(request)
    for field in _TAGS:
        _check_tag(field, getattr(request, field) or "")
    return request


def _check_prompt(prompt: str | list[str | int | list[int]]) -> None:
    if prompt == [] or (isinstance(prompt, list) and [] in prompt):
        raise invalid("prompt", "'prompt' is empty: send text or token ids.")
    if isinstance(prompt, str):
        return
    kinds = {type(item) for item in prompt}
    if len(kinds) > 1:
        raise invalid("prompt", "'prompt' mixes kinds: send strings, token ids, or lists of token ids.")
    if kinds != {int} and len(prompt) > PROMPTS_MAX:
        raise invalid("prompt", f"'prompt' may hold at most {PROMPTS_MAX} prompts, got {len(prompt)}.")


def _check_choices(request: TextRequest) -> None:
    """`best_of` answers of which the best `n` are shown: as many as are shown, or none."""
    n, best_of = request.n_choices, request.best_of
    if request.n is not None and not 1 <= request.n <= N_MAX:
        raise invalid("n", f"'n' must lie between 1 and {N_MAX}, got {shorten(str(request.n))}.")
    if best_of is not None and best_of < n:
        raise invalid("best_of", f"'best_of' must be at least 'n', {n}, got {shorten(str(best_of))}.")
    if best_of is not None and best_of > n:
        raise unsupported_value("best_of", "Every answer that is computed is shown: 'best_of' must be 'n', or absent.")
    n_all = n * len(request.prompts())
    if n_all > CHOICES_MAX:
        raise invalid("n", f"'n' for each prompt comes to {n_all} choices; at most {CHOICES_MAX} are made in one call.")


def _check_logprobs(request: TextRequest) -> None:
    if request.logprobs is None:
        return
    if not 0 <= request.logprobs <= TOP_LOGPROBS_MAX:
        raise invalid(
            "logprobs", f"'logprobs' must lie between 0 and {TOP_LOGPROBS_MAX}, got {shorten(str(request.logprobs))}."
        )
    if request.echo:
        raise unsupported_value("logprobs", "The probabilities of a prompt are not known here: 'logprobs' or 'echo'.")


def _check_tag(field: str, text: str) -> None:
    if len(text) > TAG_CHARACTERS_MAX or "\0" in text:
        raise invalid(field, f"'{field}' may have at most {TAG_CHARACTERS_MAX} characters, and no NUL.")


def _token_ids(items: list[Any]) -> tuple[int, ...]:
    return tuple(items)


class TextChoice(msgspec.Struct, frozen=True):
    """`index` counts the choices of the first prompt, then those of the second, and so on."""

    text: str
    index: int
    finish_reason: TextFinishReason | None = None
    logprobs: TextLogprobs | None = None


class TextCompletion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    system_fingerprint: str
    usage: UsageBody | msgspec.UnsetType | None = msgspec.UNSET


class TextResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Encodes the answer to one request.

    Attributes:
        id: `cmpl-...`.
        created: Unix time in seconds.
        include_usage: whether the caller asked for a usage chunk.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    include_usage: bool = False

    def whole(self, choices: list[TextChoice], usage: UsageBody) -> bytes:
        return self._encode(choices, usage)

    def chunk(self, choice: TextChoice) -> bytes:
        return self._encode([choice], None if self.include_usage else msgspec.UNSET)

    def usage_chunk(self, usage: UsageBody) -> bytes:
        """The last one; only for callers who asked for it."""
        assert self.include_usage, "a usage chunk goes only to those who asked for it"
        return self._encode([], usage)

    def _encode(self, choices: list[TextChoice], usage: UsageBody | msgspec.UnsetType | None) -> bytes:
        return msgspec.json.encode(
            TextCompletion(
                id=self.id,
                created=self.created,
                model=self.model,
                choices=choices,
                system_fingerprint=self.system_fingerprint,
                usage=usage,
            )
        )
