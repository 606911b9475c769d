"""`python -m tests.clients.lm_eval.plain_evaluation MODEL`: log-probabilities by llama.cpp alone, without inferd.

Reads a list of [context, text] as JSON, and writes for each the log-probabilities of the tokens of the text behind the
context. Each text is one batch of its own: llama.cpp's attention depends on how many rows it computes together.
"""

from __future__ import annotations

import ctypes
import json
import sys

import llama_cpp
import numpy as np
import numpy.typing as npt

NUM_CELLS = 256


class PlainEvaluation:
    """A model and a context of llama.cpp."""

    def __init__(self, path: str) -> None:
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = NUM_CELLS
        params.n_threads = params.n_threads_batch = 1
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._num_tokens = llama_cpp.llama_vocab_n_tokens(self._vocabulary)

    def tokens(self, text: str) -> list[int]:
        data = text.encode()
        found = (llama_cpp.llama_token * NUM_CELLS)()
        num_tokens = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), found, NUM_CELLS, False, True)
        assert 0 < num_tokens <= NUM_CELLS, text
        return list(found[:num_tokens])

    def logprobs(self, context: str, text: str) -> list[float]:
        """Return the log-probabilities of the tokens of `text` that follow those of `context`."""
        token_ids, num_context = self.tokens(text), len(self.tokens(context))
        rows = self._logits(token_ids)
        return [float(_log_softmax(rows[place - 1])[token_ids[place]]) for place in range(num_context, len(token_ids))]

    def _logits(self, token_ids: list[int]) -> npt.NDArray[np.float32]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        batch = llama_cpp.llama_batch_init(len(token_ids), 0, 1)
        batch.n_tokens = len(token_ids)
        for place, token_id in enumerate(token_ids):
            batch.token[place], batch.pos[place] = token_id, place
            batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, 1
        assert llama_cpp.llama_decode(self._context, batch) == 0
        llama_cpp.llama_batch_free(batch)
        size = len(token_ids) * self._num_tokens
        values = ctypes.cast(llama_cpp.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float * size))
        return np.frombuffer(values.contents, np.float32).reshape(len(token_ids), self._num_tokens)


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    return shifted - np.log(np.exp(shifted).sum())


if __name__ == "__main__":
    evaluation = PlainEvaluation(sys.argv[1])
    json.dump([evaluation.logprobs(*pair) for pair in json.load(sys.stdin)], sys.stdout)
