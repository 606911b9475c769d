"""`scripts/bench layouts`: what decoding costs in partitioned and in unified memory, beside parked cells of others.

8 sequences of some 50 tokens decode; first alone in memory, then beside 8 parked ones of 2,000 tokens each, then with
2,000 tokens of their own each and nobody else's. Tokens a second.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from inferd.config import KVLayout, KVMemory
from inferd.engine.llama.loading import load_model
from inferd.engine.llama.machine import available_cores
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.runner import SequenceState
from scripts.benchmarks.bare import Bare, Prompt
from scripts.benchmarks.machine import Watch
from scripts.benchmarks.model_file import demo_model

N_DECODING = 8
N_PARKED_TOKENS = 2000
N_TOKENS = 24
CONTEXT = 2304


class Layout:
    """A context of 16 sequences in one of the two layouts."""

    def __init__(self, model: Model, *, unified: bool) -> None:
        num_sequences = 2 * N_DECODING
        layout = KVLayout.UNIFIED if unified else KVLayout.PARTITIONED
        memory = KVMemory(layout, CONTEXT, num_sequences, num_sequences, CONTEXT * num_sequences)
        self._runner = LlamaRunner(model, memory, n_ubatch=512, n_threads=available_cores())
        self._runner.warm_up()
        self._bare = Bare(self._runner)

    def parked(self) -> SequenceState:
        """The state of a sequence of 2,000 tokens."""
        self._bare.prefill({0: tuple(range(100, 100 + N_PARKED_TOKENS))})
        state = self._runner.seq_state(0)
        self._bare.clear()
        return state

    def short(self, state: SequenceState | None) -> float:
        """The rate with short contexts; with `state`, others hold as many cells as it has, each."""
        for seq_id in range(N_DECODING, 2 * N_DECODING) if state is not None else ():
            assert state is not None
            assert self._runner.restore_seq(seq_id, state), "it fits"
        prompts: dict[int, Prompt] = {i: tuple(range(500 * i + 100, 500 * i + 148)) for i in range(N_DECODING)}
        return self._rate(self._bare.prefill(prompts))

    def long(self, state: SequenceState) -> float:
        """The rate with long contexts, nobody else's in memory."""
        for seq_id in range(N_DECODING):
            assert self._runner.restore_seq(seq_id, state), "it fits"
            self._bare.restored(seq_id, N_PARKED_TOKENS)
        return self._rate([100] * N_DECODING)

    def _rate(self, token_ids: list[int]) -> float:
        started = time.perf_counter()
        self._bare.decode(token_ids, N_TOKENS)
        rate = N_DECODING * N_TOKENS / (time.perf_counter() - started)
        self._bare.clear()
        return rate

    def close(self) -> None:
        self._runner.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench layouts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    model = load_model(arguments.model or demo_model())
    for name in ("partitioned", "unified"):
        watch = Watch(None)
        layout = Layout(model, unified=name == "unified")
        state = layout.parked()
        alone, beside, long = layout.short(None), layout.short(state), layout.long(state)
        print(
            f"{name:12} alone {alone:6.1f}  beside parked {beside:6.1f}  long {long:6.1f}  ({watch.stop()})", flush=True
        )
        layout.close()


if __name__ == "__main__":
    main()
