"""The fields of a request that say how tokens are drawn and where they end: of chat and of text completions."""

from __future__ import annotations

import re

import msgspec

from inferd.sampling_params import SEED_MODULUS, SamplingParams
from inferd.wire.errors import invalid, shorten

STOP_MAX = 16
STOP_CHARACTERS_MAX = 1024
LOGIT_BIAS_MAX = 1024

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
}
_LEAST_TEMPERATURE = 1e-5  # below it division overflows 32-bit floats before sampling differs from greedy
_LEAST_TOP_P = 1e-6  # an empty nucleus still holds the best token


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As they came; the properties give them in our own terms once `check_sampling` has passed them."""

    stop: str | list[str] | None = None

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Empty ones stop nothing."""
        return tuple(filter(None, (self.stop,) if isinstance(self.stop, str) else self.stop or ()))

    def sampling_params(self) -> SamplingParams:
        """OpenAI's defaults: temperature 1, top_p 1, no top-k, no min-p."""
        temperature = 1.0 if self.temperature is None else self.temperature
        repeat_penalty = self.repetition_penalty if self.repeat_penalty is None else self.repeat_penalty
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
            repeat_penalty=1.0 if repeat_penalty is None else repeat_penalty,
        )

    def check_vocabulary(self, n_vocab: int) -> None:
        """Raises InvalidRequestError if `logit_bias` names a token that the model does not have."""
        for token_id in self.logit_bias or ():
            if int(token_id) >= n_vocab:
                raise invalid(
                    "logit_bias", f"'logit_bias' names token {token_id}; this model has tokens 0 to {n_vocab - 1}."
                )


def check_sampling(request: SamplingFields) -> None:
    """Raises InvalidRequestError; what depends on the vocabulary comes later."""
    _check_ranges(request)
    _check_stop(request)
    _check_logit_bias(request)


def _check_ranges(request: SamplingFields) -> None:
    for field, (low, high) in _RANGES.items():
        value = getattr(request, field)
        if value is not None and not low <= value <= high:
            raise invalid(field, f"'{field}' must lie between {low} and {high}, got {shorten(str(value))}.")


def _check_stop(request: SamplingFields) -> None:
    if len(request.stop_strings) > STOP_MAX:
        raise invalid("stop", f"'stop' may hold at most {STOP_MAX} strings, got {len(request.stop_strings)}.")
    for index, text in enumerate([request.stop] if isinstance(request.stop, str) else request.stop or ()):
        if len(text) > STOP_CHARACTERS_MAX:
            path = "stop" if isinstance(request.stop, str) else f"stop[{index}]"
            raise invalid(path, f"'{path}' has {len(text)} characters; at most {STOP_CHARACTERS_MAX} are allowed.")


def _check_logit_bias(request: SamplingFields) -> None:
    biases = request.logit_bias or {}
    if len(biases) > LOGIT_BIAS_MAX:
        raise invalid("logit_bias", f"'logit_bias' may name at most {LOGIT_BIAS_MAX} tokens, got {len(biases)}.")
    for token_id, bias in biases.items():
        if not _TOKEN_ID.fullmatch(token_id):
            raise invalid("logit_bias", f"'logit_bias' maps token ids; '{shorten(token_id)}' is not one.")
        if not -100 <= bias <= 100:
            raise invalid("logit_bias", f"'logit_bias' of token {token_id} must lie between -100 and 100, got {bias}.")
