"""Sampling parameters: checked numbers, shared by the wire and the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

SEED_MODULUS = 2**32 - 1
"""Seeds are below it: 2**32 - 1 is LLAMA_DEFAULT_SEED, with which llama.cpp chooses a random seed."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling of one request. Callers' values are checked in wire/openai/request_fields.py; here the ranges are
    preconditions, because llama.cpp aborts the process on some values.

    Attributes:
        temperature: 0 is greedy; else logits are divided by it.
        top_p: nucleus mass in (0, 1]; 1 keeps everything.
        top_k: number of candidates kept; 0 keeps everything, as at OpenAI, which has no top-k.
        min_p: least probability relative to the best candidate, in [0, 1]; 0 is off.
        typical_p: locally typical mass in (0, 1]; 1 keeps everything.
        repeat_penalty: above 0; logits of repeated tokens are divided by it (multiplied where negative); 1 is off.
        repeat_last_n: last tokens of prompt and completion that `repeat_penalty` looks at; None for all of them.
        seed: 32-bit seed, or None for a fresh random one.
        frequency_penalty, presence_penalty: in [-2, 2], over generated tokens only.
        logit_bias: (token id, bias) pairs, added to the raw logits.
        stop: strings that end the text.
        stop_token_ids: tokens that end the text, besides the model's own end tokens.
        includes_stop: whether the text ends with the stop string or stop token, which are cut off otherwise.
        min_tokens: tokens before which no end token, no stop token and no stop string can end the text.
        ignores_end: whether end tokens are never sampled. A grammar takes precedence over this and `min_tokens`.
        allowed_token_ids: the only tokens that may be sampled; None for all.
        top_logprobs: number of alternatives reported beside each token's own probability; None to report neither.
        prompt_logprobs: the same of each token of the prompt.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop: tuple[str, ...] = ()
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int | None = None
    top_logprobs: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    includes_stop: bool = False
    min_tokens: int = 0
    ignores_end: bool = False
    allowed_token_ids: tuple[int, ...] | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        assert self.temperature >= 0.0, "temperature is not negative"
        assert 0.0 < self.top_p <= 1.0, "top_p lies in (0, 1]"
        assert self.top_k >= 0, "top_k is not negative"
        assert 0.0 <= self.min_p <= 1.0, "min_p lies in [0, 1]"
        assert 0.0 < self.typical_p <= 1.0, "typical_p lies in (0, 1]"
        assert self.repeat_penalty > 0.0, "repeat_penalty is positive"
        assert self.top_logprobs is None or self.top_logprobs >= 0, "top_logprobs is not negative"
        assert self.prompt_logprobs is None or self.prompt_logprobs >= 0, "prompt_logprobs is not negative"
        assert self.seed is None or 0 <= self.seed < 2**32, "seed has 32 bits"
        assert all(self.stop), "stop strings are not empty"
        assert self.min_tokens >= 0, "min_tokens is not negative"
        assert self.repeat_last_n is None or self.repeat_last_n >= 0, "repeat_last_n is not negative"
        assert self.allowed_token_ids != (), "a token can be sampled"

    @property
    def penalizes_repeats(self) -> bool:
        """True if repetition of tokens of the prompt or the completion is penalized."""
        return self.repeat_penalty != 1.0 and self.repeat_last_n != 0

    @property
    def penalizes(self) -> bool:
        """True if repetition is penalized."""
        return bool(self.frequency_penalty or self.presence_penalty) or self.penalizes_repeats

    def for_choice(self, index: int) -> SamplingParams:
        """Return the parameters of one of several answers, whose seeds differ and depend on the given one, if any. The
        first brings the log-probabilities of the prompt that they share."""
        seed = None if self.seed is None else (self.seed + index) % SEED_MODULUS
        return replace(self, seed=seed, prompt_logprobs=None if index else self.prompt_logprobs)
