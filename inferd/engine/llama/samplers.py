"""A sampler chain in C, one per sequence."""

from __future__ import annotations

import ctypes
import math
import secrets
from typing import Any

import numpy as np

from inferd.engine.llama.library import Library
from inferd.engine.runner import Logits
from inferd.sampling_params import SamplingParams

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
