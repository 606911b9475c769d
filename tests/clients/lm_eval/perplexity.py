"""Log-probabilities by llama.cpp's own llama-perplexity, as a reference that shares no code of inferd or its tests."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEADER = 8 + 3 * 4
"""Bytes of "_logits_", n_ctx, n_vocab and n_chunk; the token ids follow."""


class PerplexityLogprobs:
    """Log-probabilities of the second half of each chunk of a text, which llama-perplexity keeps for comparisons of
    quantisations: 16 bits each, over the 16 below the largest; a token below that has -inf.

    Args:
        texts: of `num_tokens` tokens each.
    """

    def __init__(self, program: Path, model: Path, texts: list[str], *, num_tokens: int, folder: Path) -> None:
        source, target = folder / "chunks.txt", folder / "logprobs.kld"
        source.write_text("".join(texts))
        command = [program, "-m", model, "-f", source, "-c", str(num_tokens), "-b", "512", "-ub", "512", "-t", "1"]
        subprocess.run([*command, "--kl-divergence-base", target], check=True, capture_output=True)
        data = np.memmap(target, np.uint8, "r")
        n_ctx, n_vocab, num_chunks = data[8:HEADER].view(np.int32)
        assert (n_ctx, num_chunks) == (num_tokens, len(texts)), "the file has a chunk for each text"
        num_ids = n_ctx * num_chunks
        self._token_ids: npt.NDArray[np.int32] = data[HEADER : HEADER + 4 * num_ids].view(np.int32).reshape(-1, n_ctx)
        self._first = n_ctx // 2 + 1  # place of the first token of a chunk whose log-probability is there
        width = 2 * ((n_vocab + 1) // 2) + 4
        rows = data[HEADER + 4 * num_ids :].view(np.uint16)
        self._rows = rows.reshape(num_chunks, n_ctx - self._first, width)

    def last(self, chunk: int, num_tokens: int) -> list[float]:
        """Return the log-probabilities of the last tokens of a chunk."""
        n_ctx = self._token_ids.shape[1]
        assert n_ctx - num_tokens >= self._first, "the first half of a chunk is context only"
        return [self._logprob(chunk, place) for place in range(n_ctx - num_tokens, n_ctx)]

    def _logprob(self, chunk: int, place: int) -> float:
        row = self._rows[chunk, place - self._first]
        scale, least = np.array(row[:4]).view(np.float32)
        value = int(row[4 + self._token_ids[chunk, place]])
        return float(least + scale * value) if value else -math.inf
