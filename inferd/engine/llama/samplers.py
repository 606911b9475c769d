"""Samplers of one sequence: greedy and softmax in numpy, and chains of llama.cpp's samplers."""

from __future__ import annotations

import ctypes
import math
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from inferd.engine.llama.library import Library
from inferd.engine.runner import Logits
from inferd.sampling_params import SamplingParams

MIN_TEMPERATURE = 1e-5  # below, one token has all the probability, and float32 logits would soon overflow
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_RANDOM_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: llama.cpp replaces it by a random one
_FLOORS = (1e-3, 1e-6, 1e-12, 0.0)
_BLOCK = 256

Ids = npt.NDArray[np.intp]


def new_sampler(
    library: Library, params: SamplingParams, prompt: tuple[int, ...] = (), *, vocab_size: int, history: int
) -> AnySampler:
    """Return the fastest sampler for these parameters; `history` is the maximum number of tokens of the prompt and the
    completion together."""
    if params.penalizes or params.typical_p < 1.0:
        return SamplerChain(library, params, prompt, vocab_size=vocab_size, history=history)
    if params.temperature < MIN_TEMPERATURE:
        return GreedySampler(params, vocab_size=vocab_size)
    return SoftmaxSampler(params, vocab_size=vocab_size)


def has_finite_maximum(logits: Logits) -> bool:
    """Return whether some are finite and none is a NaN, which would be their maximum; samplers sort by it."""
    return math.isfinite(logits.max())


class LogitBias:
    """`logit_bias` as arrays. The biases of a token that is named twice are added."""

    def __init__(self, params: SamplingParams, *, vocab_size: int) -> None:
        assert all(0 <= token_id < vocab_size for token_id, _ in params.logit_bias), "biased ids lie in the vocabulary"
        summed: dict[int, float] = {}
        for token_id, bias in params.logit_bias:
            summed[token_id] = summed.get(token_id, 0.0) + bias
        self._ids = np.array(list(summed), dtype=np.intp)
        self._biases = np.array(list(summed.values()), dtype=np.float32)

    def add_to(self, logits: Logits) -> None:
        """Add the biases to the logits, in place."""
        if len(self._ids):
            logits[self._ids] += self._biases


class GreedySampler:
    """Greedy sampling as by a chain of logit bias and greedy; of equal logits, the lowest id.

    A chain first copies each row into candidates of 12 bytes a token, through caches that the step has just filled:
    some 0.1 ms a row, during which the engine does not compute.
    """

    def __init__(self, params: SamplingParams, *, vocab_size: int) -> None:
        self._bias = LogitBias(params, vocab_size=vocab_size)

    def sample(self, logits: Logits) -> int | None:
        """Return the token; the bias is written into the logits. None if the logits have a NaN, the first of which
        would be the maximum, or no finite number."""
        self._bias.add_to(logits)
        best = int(logits.argmax())
        return best if math.isfinite(logits[best]) else None

    def close(self) -> None:
        """Do nothing: there is no native memory."""


class SoftmaxSampler:
    """Sampling from the distribution of a chain, in the same order: bias, temperature, top-k, top-p, min-p, each on the
    tokens that the ones before have left.

    A chain visits 49,000 candidates one by one, up to 0.7 ms a row, during which the engine does not compute; numpy
    takes a fifth of that.
    """

    def __init__(self, params: SamplingParams, *, vocab_size: int) -> None:
        assert not params.penalizes, "penalties need a chain"
        assert params.typical_p >= 1.0, "typical-p needs a chain"
        self._bias = LogitBias(params, vocab_size=vocab_size)
        self._inverse_temperature = np.float32(1.0 / params.temperature)
        self._top_k = min(params.top_k, vocab_size) if params.top_k > 0 else None
        self._top_p = params.top_p
        self._min_p = params.min_p
        self._random = np.random.default_rng(params.seed)

    def sample(self, logits: Logits) -> int | None:
        """Return a token; the logits are overwritten. None if they have a NaN or no finite number."""
        self._bias.add_to(logits)
        largest = logits.max()
        if not math.isfinite(largest):
            return None
        logits -= largest
        logits *= self._inverse_temperature
        weights = np.exp(logits, out=logits)  # the largest is 1
        ids = self._candidates(weights)
        if ids is not None:
            return int(ids[self._pick(weights[ids])])
        # In two stages: adding up one by one takes longest.
        num_whole = len(weights) // _BLOCK * _BLOCK
        sums = weights[:num_whole].reshape(-1, _BLOCK).sum(axis=1)
        first = self._pick(np.append(sums, weights[num_whole:].sum())) * _BLOCK
        return first + self._pick(weights[first : first + _BLOCK])

    def close(self) -> None:
        """Do nothing: there is no native memory."""

    def _pick(self, weights: Logits) -> int:
        """Return a random index in proportion to the weights; never one of weight 0."""
        cumulated = np.cumsum(weights, dtype=np.float64)
        total = float(cumulated[-1])
        target = min(self._random.random() * total, math.nextafter(total, 0.0))
        return int(cumulated.searchsorted(target, side="right"))

    def _candidates(self, weights: Logits) -> Ids | None:
        """Return the ids that may be sampled; None for all."""
        ids: Ids | None = None
        if self._top_k is not None:
            ids = _top(weights, self._top_k)
        if self._top_p < 1.0:
            ids = _nucleus(weights, self._top_p) if ids is None else ids[_nucleus(weights[ids], self._top_p)]
        if self._min_p > 0.0:
            ids = np.flatnonzero(weights >= self._min_p) if ids is None else ids[weights[ids] >= self._min_p]
        return ids


class SamplerChain:
    """llama.cpp's samplers in the order that OpenAI's parameters imply (nucleus after temperature): logit bias,
    penalties, temperature, top-k, typical-p, top-p, min-p, sample.

    Frequency and presence penalty count the generated tokens, as OpenAI's do: a sampler of their own accepts only
    these. The sampler of the repeat penalty accepts the prompt too. `history` is at least as long as both together.
    """

    def __init__(
        self,
        library: Library,
        params: SamplingParams,
        prompt: tuple[int, ...] = (),
        *,
        vocab_size: int,
        history: int,
    ) -> None:
        self._library = library
        api = library.api
        assert all(0 <= token_id < vocab_size for token_id, _ in params.logit_bias), "biased ids lie in the vocabulary"
        self.handle: Any = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        for sampler in self._samplers(params, prompt, vocab_size, history):
            api.llama_sampler_chain_add(self.handle, sampler)

    def sample(self, logits: Logits) -> int | None:
        """Return a token from a copy of a row's logits, like `llama_sampler_sample` from the context's own; None if
        they have a NaN or no finite number."""
        if not has_finite_maximum(logits):
            return None
        candidates = np.zeros(len(logits), dtype=_CANDIDATE)
        candidates["id"] = np.arange(len(logits))
        candidates["logit"] = logits
        api, short = self._library.api, self._library.short
        data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(api.llama_token_data))
        array = api.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
        short.llama_sampler_apply(self.handle, ctypes.byref(array))
        assert 0 <= array.selected < array.size, "the last sampler of a chain selects"
        token_id = int(array.data[array.selected].id)
        short.llama_sampler_accept(self.handle, token_id)
        return token_id

    def close(self) -> None:
        self._library.short.llama_sampler_free(self.handle)

    def _samplers(self, params: SamplingParams, prompt: tuple[int, ...], vocab_size: int, history: int) -> list[Any]:
        api = self._library.api
        samplers = []
        if params.logit_bias:
            biases = (api.llama_logit_bias * len(params.logit_bias))(*params.logit_bias)
            samplers.append(api.llama_sampler_init_logit_bias(vocab_size, len(biases), biases))
        if params.penalizes_repeats:
            samplers.append(self._repeat_penalty(params, prompt, vocab_size, history))
        if params.frequency_penalty or params.presence_penalty:
            samplers.append(
                api.llama_sampler_init_penalties(
                    vocab_size, history, 1.0, params.frequency_penalty, params.presence_penalty
                )
            )
        if params.temperature < MIN_TEMPERATURE:
            return [*samplers, api.llama_sampler_init_greedy()]
        if params.temperature != 1.0:
            samplers.append(api.llama_sampler_init_temp(params.temperature))
        if params.top_k > 0:
            samplers.append(api.llama_sampler_init_top_k(min(params.top_k, vocab_size)))
        if params.typical_p < 1.0:
            samplers.append(api.llama_sampler_init_typical(params.typical_p, 1))
        if params.top_p < 1.0:
            samplers.append(api.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p > 0.0:
            samplers.append(api.llama_sampler_init_min_p(params.min_p, 1))
        seed = secrets.randbits(32) if params.seed is None else params.seed
        return [*samplers, api.llama_sampler_init_dist(seed if seed != _RANDOM_SEED else 0)]

    def _repeat_penalty(self, params: SamplingParams, prompt: tuple[int, ...], vocab_size: int, history: int) -> Any:
        """Return the sampler of the repeat penalty, which has accepted the prompt, or its end within the window."""
        window = history if params.repeat_last_n is None else min(params.repeat_last_n, history)
        sampler = self._library.api.llama_sampler_init_penalties(vocab_size, window, params.repeat_penalty, 0.0, 0.0)
        # How often a token occurs does not count here: without a window, each different one is accepted once.
        accepted = dict.fromkeys(prompt) if params.repeat_last_n is None else prompt[-window:]
        for token_id in accepted:
            self._library.short.llama_sampler_accept(sampler, token_id)
        return sampler


AnySampler = GreedySampler | SoftmaxSampler | SamplerChain


def _heavy(weights: Logits) -> Iterator[Ids]:
    """Yield growing sets of the heaviest ids, all of them in the end, so that the caller need not sort the rest."""
    for floor in _FLOORS:
        ids = np.flatnonzero(weights >= floor)
        yield ids
        if len(ids) == len(weights):
            return


def _top(weights: Logits, k: int) -> Ids:
    """Return the `k` heaviest ids, in any order."""
    ids = next(ids for ids in _heavy(weights) if len(ids) >= k)
    return ids if len(ids) == k else ids[np.argpartition(weights[ids], -k)[-k:]]


def _nucleus(weights: Logits, top_p: float) -> Ids:
    """Return the fewest ids, the heaviest first, that have `top_p` of all weight together; at least one."""
    wanted = top_p * float(weights.sum(dtype=np.float64))
    for ids in _heavy(weights):
        ordered = ids[np.argsort(-weights[ids], kind="stable")]
        cumulated = np.cumsum(weights[ordered], dtype=np.float64)
        if cumulated[-1] >= wanted:
            break
    return ordered[: int(cumulated.searchsorted(wanted, side="left")) + 1]
