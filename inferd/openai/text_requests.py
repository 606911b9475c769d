"""`POST /v1/completions` (OpenAI's legacy text completions): the body as a checked, typed request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.openai.decoding import decode, shorten
from inferd.openai.requests import StreamOptions
from inferd.openai.sampling_fields import SamplingFields, check_sampling, invalid
from inferd.service_tier import ServiceTier

PROMPTS_MAX = 64
TAG_CHARACTERS_MAX = 512

# The value, or values, that ask for nothing else than what is done anyway.
_ONLY: dict[str, tuple[object, ...]] = {"n": (1,), "best_of": (1,), "logprobs": (), "suffix": ("",)}
_TAGS = ("model", "user", "prompt_cache_key", "prompt_cache_isolation_key")


class TextRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text completion's request as it came, once `parse_text_request` has checked it."""

    model: str
    prompt: str | list[str | int | list[int]]

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    echo: bool | None = None

    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_isolation_key: str | None = None

    # Refused by name.
    n: int | None = None
    best_of: int | None = None
    logprobs: Any = None
    suffix: Any = None

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def prompts(self) -> list[TextPrompt]:
        """At least one; each is answered by a choice of its own."""
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
        return 1

    @property
    def completion_limit(self) -> int | None:
        """Most completion tokens that the caller asked for, or None if it named no limit."""
        return self.request.max_tokens

    @property
    def tier(self) -> ServiceTier:
        """OpenAI's legacy endpoint has no others."""
        return ServiceTier.DEFAULT


_DECODER = msgspec.json.Decoder(TextRequest)


def parse_text_request(body: bytes) -> TextRequest:
    """Decoded and checked. Raises InvalidRequestError with `param` naming the field; what depends on the model comes
    later."""
    request = decode(body, _DECODER)
    if not request.model:
        raise invalid("model", "'model' is empty: name a model, see GET /v1/models.")
    for field, allowed in _ONLY.items():
        value = getattr(request, field)
        if value is not None and value not in allowed:
            raise InvalidRequestError(
                f"'{field}' is not supported here with this value; leave it out.",
                param=field,
                code="unsupported_parameter" if not allowed else "unsupported_value",
            )
    if request.stream_options is not None and not request.streamed:
        raise invalid("stream_options", "'stream_options' is only allowed when 'stream' is true.")
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        raise InvalidRequestError(
            "Obfuscation of streams is not supported.",
            param="stream_options.include_obfuscation",
            code="unsupported_value",
        )
    if request.max_tokens is not None and request.max_tokens < 1:
        raise invalid("max_tokens", f"'max_tokens' must be at least 1, got {shorten(str(request.max_tokens))}.")
    _check_prompt(request.prompt)
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


def _check_tag(field: str, text: str) -> None:
    if len(text) > TAG_CHARACTERS_MAX or "\0" in text:
        raise invalid(field, f"'{field}' may have at most {TAG_CHARACTERS_MAX} characters, and no NUL.")


def _token_ids(items: list[Any]) -> tuple[int, ...]:
    return tuple(items)
