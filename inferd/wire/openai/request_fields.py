"""Request fields that several endpoints share: the model, tags, inputs, sampling, streaming and limits."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from inferd.constraint import Constraint
from inferd.sampling_params import SEED_MODULUS, SamplingParams
from inferd.wire.errors import invalid, shorten
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.response_format import (
    ResponseFormat,
    StructuredOutputs,
    check_guidance,
    check_response_format,
    check_schemas,
    guided_constraint,
    response_constraint,
    schema_constraint,
)

MAX_N = 16
MAX_TOP_LOGPROBS = 20
MAX_STOP = 16
MAX_STOP_CHARACTERS = 1024
MAX_LOGIT_BIAS = 1024
MAX_STOP_TOKENS = 128
_UNIQUE_KEY_BYTES = 16
MAX_TAG_CHARACTERS = 512
MAX_METADATA = 16
MAX_METADATA_KEY_CHARACTERS = 64
MAX_METADATA_VALUE_CHARACTERS = 512

ASKS_FOR_NOTHING: tuple[object, ...] = (None, False, [], {}, "")
"""Values with which even an unsupported field is accepted."""

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repeat_penalty": (0.01, 10),
    "repetition_penalty": (0.01, 10),
    "top_k": (-1, 2**31 - 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "seed": (-(2**63), 2**63 - 1),
    "min_tokens": (0, 2**31 - 1),
    "repeat_last_n": (-1, 2**31 - 1),
}
_REPEAT_LAST_N = 64
"""Default window of `repeat_penalty`, which is llama.cpp's and Ollama's."""
_LEAST_TEMPERATURE = 1e-5  # below it, division overflows 32-bit floats before sampling differs from greedy
_LEAST_TOP_P = 1e-6  # an empty nucleus still holds the best token


@dataclass(frozen=True, slots=True)
class TextInput:
    """Prompt of a text completion or input to embed.

    Attributes:
        content: text, in which a prompt's control tokens are read as such, or token ids.
        param: path of the input in the request.
    """

    content: str | tuple[int, ...]
    param: str


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class CompletionFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of chat and text completions as they came; the properties are valid once the fields were checked.

    Attributes:
        limit_names: fields that all are names of the completion limit: OpenAI's, llama-server's, Ollama's.
    """

    limit_names: ClassVar[tuple[str, ...]] = ("max_tokens", "n_predict", "num_predict")

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n_predict: int | None = None
    num_predict: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    prompt_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[int] | None = None

    # Constraints of the text: OpenAI's, llama.cpp's, Ollama's, vLLM's.
    response_format: ResponseFormat | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    format: dict[str, Any] | str | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None

    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_isolation_key: str | None = None
    cache_salt: str | None = None
    cache_prompt: bool | None = None
    prompt_cache_max_len: int | None = None

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    @property
    def include_usage(self) -> bool:
        """True if the stream ends in a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def runs_usage(self) -> bool:
        """True if each chunk of the stream has the usage so far."""
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @property
    def num_choices(self) -> int:
        """Choices of each prompt."""
        return self.n or 1

    @property
    def limits(self) -> dict[str, int]:
        """Limits of the completion that the caller gave, by the names of the field."""
        named = {name: getattr(self, name) for name in self.limit_names}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def shown_prompt_logprobs(self) -> int | None:
        """Alternatives to show for each token of the prompt; None to show nothing of it. A stream does not show it."""
        return None if self.streamed else self.prompt_logprobs

    @property
    def completion_limit(self) -> int | None:
        """Most completion tokens that the caller asked for, by the smallest of its limits; None for no limit."""
        return min((limit for limit in self.limits.values() if limit >= 0), default=None)

    @property
    def constraint(self) -> Constraint | None:
        """Constraint of the text, or None."""
        return (
            response_constraint(self.response_format, self.grammar)
            or guided_constraint(*self.guidance)
            or schema_constraint(self.schemas)
        )

    @property
    def guidance(self) -> tuple[StructuredOutputs, str]:
        """Fields of newer or older versions of vLLM, and the beginning of their names."""
        if self.structured_outputs is not None:
            return self.structured_outputs, "structured_outputs."
        older = StructuredOutputs(self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar)
        return older, "guided_"

    @property
    def schemas(self) -> dict[str, dict[str, Any] | str]:
        """Schemas that are given by themselves, by the name of their field; "json" stands for any object."""
        named = {"json_schema": self.json_schema, "format": self.format}
        return {name: schema for name, schema in named.items() if schema}

    @property
    def isolation_key(self) -> str | None:
        """Key of the requests that may share prefixes; None to share with all of the team's. A request that is not to
        be answered from the cache has a key that no other request has."""
        if self.cache_prompt is False or self.prompt_cache_max_len == 0:
            return secrets.token_hex(_UNIQUE_KEY_BYTES)
        return self.prompt_cache_isolation_key or self.cache_salt

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Stop strings without empty ones, which stop nothing."""
        return tuple(filter(None, (self.stop,) if isinstance(self.stop, str) else self.stop or ()))

    def sampling_params(self) -> SamplingParams:
        """Return the sampling with OpenAI's defaults: temperature 1, top_p 1, no top-k, no min-p."""
        temperature = 1.0 if self.temperature is None else self.temperature
        repeat_penalty, repeat_last_n = self._repeat_penalty()
        return SamplingParams(
            temperature=temperature if temperature >= _LEAST_TEMPERATURE else 0.0,
            top_p=1.0 if self.top_p is None else max(self.top_p, _LEAST_TOP_P),
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            seed=None if self.seed is None else self.seed % SEED_MODULUS,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=tuple((int(token_id), bias) for token_id, bias in (self.logit_bias or {}).items()),
            stop=self.stop_strings,
            typical_p=1.0 if self.typical_p is None else max(self.typical_p, _LEAST_TOP_P),
            repeat_penalty=repeat_penalty,
            repeat_last_n=repeat_last_n,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            includes_stop=bool(self.include_stop_str_in_output),
            min_tokens=self.min_tokens or 0,
            ignores_end=bool(self.ignore_eos),
            allowed_token_ids=tuple(self.allowed_token_ids) if self.allowed_token_ids else None,
            prompt_logprobs=self.shown_prompt_logprobs,
        )

    def _repeat_penalty(self) -> tuple[float, int | None]:
        """Return the penalty and its window: vLLM's `repetition_penalty` looks at all of prompt and completion,
        llama.cpp's `repeat_penalty` at the last tokens."""
        if self.repeat_penalty is None:
            return 1.0 if self.repetition_penalty is None else self.repetition_penalty, None
        window = _REPEAT_LAST_N if self.repeat_last_n is None else self.repeat_last_n
        return self.repeat_penalty, None if window < 0 else window

    def check_vocabulary(self, n_vocab: int) -> None:
        """Raise InvalidRequestError if a field names a token that the model does not have."""
        named = {
            "logit_bias": map(int, self.logit_bias or ()),
            "stop_token_ids": self.stop_token_ids or (),
            "allowed_token_ids": self.allowed_token_ids or (),
        }
        for field, token_ids in named.items():
            for token_id in token_ids:
                if not 0 <= token_id < n_vocab:
                    raise invalid(field, f"'{field}' names token {token_id}; this model has tokens 0 to {n_vocab - 1}.")


def check_model(model: str) -> None:
    """Raise InvalidRequestError if the model's name is empty, or cannot be recorded."""
    _check_tag("model", model)
    if not model:
        raise invalid("model", "'model' is empty: name a model, see GET /v1/models.")


def check_tags(request: msgspec.Struct, fields: Iterable[str]) -> None:
    """Raise InvalidRequestError for texts that are too long, or have NUL, at which SQLite's text functions stop."""
    for field in fields:
        _check_tag(field, getattr(request, field) or "")


def _check_tag(field: str, text: str) -> None:
    if len(text) > MAX_TAG_CHARACTERS:
        raise invalid(field, f"'{field}' has {len(text)} characters; at most {MAX_TAG_CHARACTERS} are allowed.")
    if "\0" in text:
        raise invalid(field, f"'{field}' must not hold NUL characters.")


def is_metadata(value: object) -> bool:
    """Return whether `value` is null or OpenAI's `metadata`: at most 16 pairs of texts of bounded length."""
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and len(value) <= MAX_METADATA
        and all(
            isinstance(text, str)
            and len(key) <= MAX_METADATA_KEY_CHARACTERS
            and len(text) <= MAX_METADATA_VALUE_CHARACTERS
            for key, text in value.items()
        )
    )


def check_stream_options(request: CompletionFields, ignored: IgnoredFields) -> None:
    """Record the stream options without effect."""
    if request.stream_options is None:
        return
    if not request.streamed:
        ignored.add("stream_options", "is only used when 'stream' is true")
    if request.stream_options.continuous_usage_stats and not request.include_usage:
        ignored.add("stream_options.continuous_usage_stats", "is only used when 'include_usage' is true")
    if request.stream_options.include_obfuscation:
        ignored.add("stream_options.include_obfuscation", "must be false: streams are not obfuscated")


def check_limits(request: CompletionFields, ignored: IgnoredFields, *, may_be_0: bool = False) -> None:
    """Record a negative limit, which means no limit in llama.cpp and Ollama, and one above another. Raises
    InvalidRequestError for 0 unless the answer shows the prompt, and for `min_tokens` above the limit."""
    limit, least = request.completion_limit, request.min_tokens or 0
    holding = next((field for field, value in request.limits.items() if value == limit), "")
    for field, value in request.limits.items():
        if value == 0 and not may_be_0:
            raise invalid(field, f"'{field}' must be at least 1, got 0.")
        if value < 0:
            ignored.add(field, "must be at least 1")
        elif value != limit:
            ignored.add(field, f"is above '{holding}', which holds")
    if limit is not None and least > limit:
        raise invalid("min_tokens", f"'min_tokens' must be at most '{holding}', {limit}, got {least}.")


def check_constraints(request: CompletionFields) -> None:
    """Raise InvalidRequestError for invalid constraints, and for more than one."""
    check_response_format(request.response_format, request.grammar)
    is_alone = request.grammar is None and (request.response_format is None or request.response_format.type == "text")
    check_guidance(*request.guidance, is_alone=is_alone)
    is_alone = is_alone and guided_constraint(*request.guidance) is None
    check_schemas(request.schemas, is_alone=is_alone)


def check_num_choices(n: int | None) -> None:
    """Raise InvalidRequestError unless `n` lies between 1 and MAX_N."""
    if n is not None and not 1 <= n <= MAX_N:
        raise invalid("n", f"'n' must lie between 1 and {MAX_N}, got {shorten(str(n))}.")


def check_num_alternatives(field: str, value: int | None) -> None:
    """Raise InvalidRequestError unless the number of alternatives a token lies between 0 and MAX_TOP_LOGPROBS."""
    if value is not None and not 0 <= value <= MAX_TOP_LOGPROBS:
        raise invalid(field, f"'{field}' must lie between 0 and {MAX_TOP_LOGPROBS}, got {shorten(str(value))}.")


def check_sampling(request: CompletionFields) -> None:
    """Raise InvalidRequestError for values out of range; `check_vocabulary` follows once the model is known."""
    for field, (low, high) in _RANGES.items():
        value = getattr(request, field)
        if value is not None and not low <= value <= high:
            raise invalid(field, f"'{field}' must lie between {low} and {high}, got {shorten(str(value))}.")
    if request.repeat_penalty is not None and request.repetition_penalty not in (None, request.repeat_penalty):
        raise invalid(
            "repetition_penalty", "'repetition_penalty' and 'repeat_penalty' exclude each other: send one of them."
        )
    _check_stop(request)
    _check_logit_bias(request)


def _check_stop(request: CompletionFields) -> None:
    if len(request.stop_strings) > MAX_STOP:
        raise invalid("stop", f"'stop' may hold at most {MAX_STOP} strings, got {len(request.stop_strings)}.")
    for index, text in enumerate([request.stop] if isinstance(request.stop, str) else request.stop or ()):
        if len(text) > MAX_STOP_CHARACTERS:
            path = "stop" if isinstance(request.stop, str) else f"stop[{index}]"
            raise invalid(path, f"'{path}' has {len(text)} characters; at most {MAX_STOP_CHARACTERS} are allowed.")
    num_tokens = len(request.stop_token_ids or ())
    if num_tokens > MAX_STOP_TOKENS:
        raise invalid("stop_token_ids", f"'stop_token_ids' may hold at most {MAX_STOP_TOKENS}, got {num_tokens}.")


def check_without_effect(request: CompletionFields, ignored: IgnoredFields) -> None:
    """Record the fields that have an effect only with others."""
    if request.repeat_last_n is not None and request.repeat_penalty is None:
        ignored.add("repeat_last_n", "is only used with 'repeat_penalty'")
    if request.prompt_cache_max_len:
        ignored.add("prompt_cache_max_len", "must be 0, which turns the prompt cache off")


def _check_logit_bias(request: CompletionFields) -> None:
    biases = request.logit_bias or {}
    if len(biases) > MAX_LOGIT_BIAS:
        raise invalid("logit_bias", f"'logit_bias' may name at most {MAX_LOGIT_BIAS} tokens, got {len(biases)}.")
    for token_id, bias in biases.items():
        if not _TOKEN_ID.fullmatch(token_id):
            raise invalid("logit_bias", f"The keys of 'logit_bias' must be token ids, got '{shorten(token_id)}'.")
        if not -100 <= bias <= 100:
            raise invalid("logit_bias", f"'logit_bias' of token {token_id} must lie between -100 and 100, got {bias}.")


def check_one_kind(field: str, value: list[str | int | list[int]]) -> None:
    """Raise InvalidRequestError if a list of inputs mixes strings, token ids and lists of token ids."""
    if len({type(item) for item in value}) > 1:
        raise invalid(field, f"'{field}' mixes kinds: send strings, token ids, or lists of token ids.")


def inputs_of(field: str, value: str | list[str | int | list[int]]) -> list[TextInput]:
    """Return the inputs of a field that is not empty and of one kind."""
    if isinstance(value, str):
        return [TextInput(value, field)]
    if isinstance(value[0], int):
        return [TextInput(tuple(value), field)]  # type: ignore[arg-type]
    return [
        TextInput(tuple(item) if isinstance(item, list) else str(item), f"{field}[{index}]")
        for index, item in enumerate(value)
    ]
