"""Samplers of one sequence: greedy and softmax in numpy, and chains of llama.cpp."""

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


class LogitBias:
    """`logit_bias` as arrays. A token may be named twice; then both count."""

    def __init__(self, params: SamplingParams, *, n_vocab: int) -> None:
        assert all(0 <= token_id < n_vocab for token_id, _ in params.logit_bias), "biased ids lie in the vocabulary"
        summed: dict[int, float] = {}
        for token_id, bias in params.logit_bias:
            summed[token_id] = summed.get(token_id, 0.0) + bias
        self._ids = np.array(list(summed), dtype=np.intp)
        self._biases = np.array(list(summed.values()), dtype=np.float32)

    def add_to(self, logits: Logits) -> None:
        """In place."""
        if len(self._ids):
            logits[self._ids] += self._biases


class GreedySampler:
    """What a chain of logit bias and greedy gives, among equals the lowest id as well. A chain copies each row into
    candidates of 12 bytes a token first, through caches that the step has just filled: some 0.1 ms a row, while nobody
    computes."""

    def __init__(self, params: SamplingParams, *, n_vocab: int) -> None:
        self._bias = LogitBias(params, n_vocab=n_vocab)

    def draw(self, logits: Logits) -> int | None:
        """The bias is written into the logits. None if there is a NaN among them, the first of which would be the
        maximum, or nothing finite."""
        self._bias.add_to(logits)
        best = int(logits.argmax())
        return best if math.isfinite(logits[best]) else None

    def close(self) -> None:
        """There is nothing to release."""


_FLOORS = (1e-3, 1e-6, 1e-12, 0.0)
_BLOCK = 256

Ids = npt.NDArray[np.intp]


class SoftmaxSampler:
    """Draws from what a chain of these samplers would, in the same order: bias, temperature, top-k, top-p, min-p, each
    on what the ones before have left. A chain goes through 49,000 candidates one by one, up to 0.7 ms a row, while
    nobody computes; numpy takes a fifth of that."""

    def __init__(self, params: SamplingParams, *, n_vocab: int) -> None:
        assert not params.penalizes, "penalties need a chain"
        assert params.typical_p >= 1.0, "typical-p needs a chain"
        self._bias = LogitBias(params, n_vocab=n_vocab)
        self._inverse_temperature = np.float32(1.0 / params.temperature)
        self._top_k = min(params.top_k, n_vocab) if params.top_k > 0 else None
        self._top_p = params.top_p
        self._min_p = params.min_p
        self._random = np.random.default_rng(params.seed)

    def draw(self, logits: Logits) -> int | None:
        """Writes over the logits. None if there is a NaN among them, or nothing finite."""
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
        n_whole = len(weights) // _BLOCK * _BLOCK
        sums = weights[:n_whole].reshape(-1, _BLOCK).sum(axis=1)
        first = self._pick(np.append(sums, weights[n_whole:].sum())) * _BLOCK
        return first + self._pick(weights[first : first + _BLOCK])

    def close(self) -> None:
        """There is nothing to release."""

    def _pick(self, weights: Logits) -> int:
        """An index, each as often as its weight says; never one that weighs nothing."""
        cumulated = np.cumsum(weights, dtype=np.float64)
        total = float(cumulated[-1])
        target = min(self._random.random() * total, math.nextafter(total, 0.0))
        return int(cumulated.searchsorted(target, side="right"))

    def _candidates(self, weights: Logits) -> Ids | None:
        """Who may be drawn; None: all."""
        ids: Ids | None = None
        if self._top_k is not None:
            ids = _top(weights, self._top_k)
        if self._top_p < 1.0:
            ids = _nucleus(weights, self._top_p) if ids is None else ids[_nucleus(weights[ids], self._top_p)]
        if self._min_p > 0.0:
            ids = np.flatnonzero(weights >= self._min_p) if ids is None else ids[weights[ids] >= self._min_p]
        return ids


def _heavy(weights: Logits) -> Iterator[Ids]:
    """More and more of those that weigh most, all in the end: whoever sorts need not sort the rest."""
    for floor in _FLOORS:
        ids = np.flatnonzero(weights >= floor)
        yield ids
        if len(ids) == len(weights):
            return


def _top(weights: Logits, k: int) -> Ids:
    """The `k` heaviest, in any order."""
    ids = next(ids for ids in _heavy(weights) if len(ids) >= k)
    return ids if len(ids) == k else ids[np.argpartition(weights[ids], -k)[-k:]]


def _nucleus(weights: Logits, top_p: float) -> Ids:
    """The fewest, the heaviest first, that have `top_p` of all weight together; at least one."""
    wanted = top_p * float(weights.sum(dtype=np.float64))
    for ids in _heavy(weights):
        ordered = ids[np.argsort(-weights[ids], kind="stable")]
        cumulated = np.cumsum(weights[ordered], dtype=np.float64)
        if cumulated[-1] >= wanted:
            break
    return ordered[: int(cumulated.searchsorted(wanted, side="left")) + 1]


MIN_TEMPERATURE = 1e-5  # below, one token has all the probability, and float32 logits would soon overflow
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_RANDOM_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: llama.cpp takes it as "draw one"


def is_drawable(logits: Logits) -> bool:
    """Whether some of them are finite and none is a NaN, which would be their maximum; samplers sort by it."""
    return math.isfinite(logits.max())


class SamplerChain:
    """logit bias, penalties, temperature, top-k, typical-p, top-p, min-p, draw: the order that OpenAI's parameters
    imply (nucleus after temperature). Penalties count the generated tokens: only those are ever accepted, and
    `history` is at least as many as can be generated."""

    def __init__(self, library: Library, params: SamplingParams, *, n_vocab: int, history: int) -> None:
        self._library = library
        api = library.api
        assert all(0 <= token_id < n_vocab for token_id, _ in params.logit_bias), "biased ids lie in the vocabulary"
        self.handle: Any = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        for sampler in self._samplers(api, params, n_vocab, history):
            api.llama_sampler_chain_add(self.handle, sampler)

    def draw(self, logits: Logits) -> int | None:
        """From a copy of a row's logits, as `llama_sampler_sample` draws from the context's own; None if they are not
        drawable."""
        if not is_drawable(logits):
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

    @staticmethod
    def _samplers(api: Any, params: SamplingParams, n_vocab: int, history: int) -> list[Any]:
        samplers = []
        if params.logit_bias:
            biases = (api.llama_logit_bias * len(params.logit_bias))(*params.logit_bias)
            samplers.append(api.llama_sampler_init_logit_bias(n_vocab, len(biases), biases))
        if params.penalizes:
            samplers.append(
                api.llama_sampler_init_penalties(
                    n_vocab, history, params.repeat_penalty, params.frequency_penalty, params.presence_penalty
                )
            )
        if params.temperature < MIN_TEMPERATURE:
            return [*samplers, api.llama_sampler_init_greedy()]
        if params.temperature != 1.0:
            samplers.append(api.llama_sampler_init_temp(params.temperature))
        if params.top_k > 0:
            samplers.append(api.llama_sampler_init_top_k(min(params.top_k, n_vocab)))
        if params.typical_p < 1.0:
            samplers.append(api.llama_sampler_init_typical(params.typical_p, 1))
        if params.top_p < 1.0:
            samplers.append(api.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p > 0.0:
            samplers.append(api.llama_sampler_init_min_p(params.min_p, 1))
        seed = secrets.randbits(32) if params.seed is None else params.seed
        return [*samplers, api.llama_sampler_init_dist(seed if seed != _RANDOM_SEED else 0)]
