"""`scripts/bench kernel`: the engine without HTTP.

`decode`: 16 sequences side by side, against a bare loop over the same native calls. `prefix`: one cold system prompt,
8 questions, against the order of an oracle. `batch`: the time between tokens of 4 default requests with batch work
waiting, against the same without. `logprobs`: a prompt of about 1,000 tokens and its log-probabilities, against the
prompt alone, in processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from inferd.config import KVLayout, KVMemory
from inferd.engine.batch import MAX_SCORED_ROWS
from inferd.engine.core import EngineCore
from inferd.engine.llama.loading import MAX_STEP_MS_CPU, load_model
from inferd.engine.llama.machine import available_cores
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.messages import AddRequest, TrafficClass
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import Segment
from scripts.benchmarks.bare import Bare, Prompt
from scripts.benchmarks.machine import Watch
from scripts.benchmarks.model_file import demo_model
from scripts.benchmarks.prompts import words

N_SEQUENCES = 16
N_TOKENS = 64
N_ANSWER = 24
N_SCORED = 1000
CONTEXT = 2048


class Bench:
    """One model, one context: whoever is measured has both to itself."""

    def __init__(self, model: Model) -> None:
        memory = KVMemory(KVLayout.PARTITIONED, CONTEXT, N_SEQUENCES, N_SEQUENCES, CONTEXT * N_SEQUENCES)
        self._model = model
        self._runner = LlamaRunner(
            model, memory, n_ubatch=512, n_threads=available_cores(), max_outputs=N_SEQUENCES + MAX_SCORED_ROWS
        )
        self._runner.warm_up()
        self.bare = Bare(self._runner)

    def ids(self, text: str) -> Prompt:
        return tuple(self._model.vocabulary.encode([Segment(text, True)]))

    def core(self) -> EngineCore:
        self.bare.clear()
        return EngineCore(self._runner, max_step_ms=MAX_STEP_MS_CPU)

    def request(
        self, name: str, prompt: Prompt, n_tokens: int, kind: TrafficClass = TrafficClass.DEFAULT
    ) -> AddRequest:
        """Greedy, and of that length: no token ends it."""
        ends = sorted(self._model.vocabulary.end_of_generation)
        params = SamplingParams(temperature=0.0, logit_bias=tuple((token_id, -100.0) for token_id in ends))
        return AddRequest(name, prompt, params, n_tokens, kind.name, "bench", traffic_class=kind)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench kernel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help="default: decode, prefix, batch, logprobs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    bench = Bench(load_model(arguments.model or demo_model()))
    short = [bench.ids(f"Write about the number {i}: ") for i in range(N_SEQUENCES)]
    system = bench.ids(words(800, 7))
    scored = bench.ids(words(1000, 9))[:N_SCORED]
    asked = [bench.ids(f"\nWhat about {words(2, i)}?") for i in range(8)]
    cases: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "decode": (lambda: _bare_decode(bench, short), lambda: _engine(bench, short, N_TOKENS)),
        "prefix": (
            lambda: _oracle(bench, system, asked),
            lambda: _engine(bench, [system + question for question in asked], N_ANSWER),
        ),
        "batch": (lambda: _gap_s(bench, short, n_batch=0), lambda: _gap_s(bench, short, n_batch=24)),
        "logprobs": (lambda: _prompt(bench, scored, None), lambda: _prompt(bench, scored, 1)),
    }
    for name in arguments.cases or cases:
        watch = Watch(None)
        pairs = [(cases[name][0](), cases[name][1]()) for _ in range(arguments.repeats)]
        first, second = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(_line(name, first, second) + f"   ({watch.stop()})", flush=True)


def _line(name: str, first: float, second: float) -> str:
    if name == "batch":
        alone, beside = f"alone {first * 1e3:6.1f} ms", f"beside batch {second * 1e3:6.1f} ms"
        return f"{name:8} gap p50 {alone}   {beside}   ratio {second / first:5.2f}"
    if name == "logprobs":
        alone, scored = f"alone {first:6.2f} s", f"with log-probabilities {second:6.2f} s of a core"
        return f"{name:8} prompt {alone}   {scored}   ratio {second / first:5.2f}"
    return f"{name:8} bare {first:6.2f} s   engine {second:6.2f} s   bare/engine {first / second:5.2f}"


def _bare_decode(bench: Bench, prompts: list[Prompt]) -> float:
    bench.bare.clear()
    started = time.perf_counter()
    token_ids = bench.bare.prefill(dict(enumerate(prompts)))
    bench.bare.decode(token_ids, N_TOKENS - 1)
    return time.perf_counter() - started


def _oracle(bench: Bench, system: Prompt, asked: list[Prompt]) -> float:
    bench.bare.clear()
    started = time.perf_counter()
    bench.bare.prefill({0: system})
    for seq_id in range(1, len(asked)):
        bench.bare.copy(0, seq_id)
    token_ids = bench.bare.prefill(dict(enumerate(asked)))
    bench.bare.decode(token_ids, N_ANSWER - 1)
    return time.perf_counter() - started


def _engine(bench: Bench, prompts: list[Prompt], n_tokens: int) -> float:
    core = bench.core()
    started = time.perf_counter()
    for index, prompt in enumerate(prompts):
        core.add_request(bench.request(f"r{index}", prompt, n_tokens))
    while core.has_work:
        core.step()
        core.take_outputs()
    return time.perf_counter() - started


def _prompt(bench: Bench, prompt: Prompt, num_top: int | None) -> float:
    """Processor time of a prompt without an answer; with `num_top`, of its log-probabilities and so many
    alternatives."""
    core = bench.core()
    started = time.process_time()
    core.add_request(AddRequest("prompt", prompt, SamplingParams(prompt_logprobs=num_top), 0, "bench"))
    while core.has_work:
        core.step()
        core.take_outputs()
    return time.process_time() - started


def _gap_s(bench: Bench, prompts: list[Prompt], *, n_batch: int) -> float:
    """Median time between tokens of 4 default requests; `n_batch` others of the batch class wait and run beside."""
    core = bench.core()
    for index in range(n_batch):
        prompt = bench.ids(f"{words(100, 50 + index)}: ")
        core.add_request(bench.request(f"batch-{index}", prompt, N_TOKENS, TrafficClass.BATCH))
    for _ in range(min(n_batch, 4)):
        core.step()
    for index, prompt in enumerate(prompts[:4]):
        core.add_request(bench.request(f"default-{index}", prompt, N_TOKENS))
    latest: dict[str, float] = {}
    gaps: list[float] = []
    live = 4
    while live:
        core.step()
        now = time.perf_counter()
        for output in core.take_outputs():
            if output.request_id.startswith("default"):
                gaps += [now - latest[output.request_id]] if output.request_id in latest else []
                latest[output.request_id] = now
                live -= output.finish_reason is not None
    core.abort_all("the measurement is over")
    return statistics.median(gaps)


if __name__ == "__main__":
    main()
