"""Teacher forcing: every request says what the test wants, and the test gets the logits it would have chosen from.
Comparing free-running text would compare only until the first near tie."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inferd.config import KVLayout, KVMemory
from inferd.engine.core import EngineCore
from inferd.engine.llama.loading import load_model
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.messages import AddRequest, RequestOutput
from inferd.engine.runner import Batch, Sampler
from inferd.engine.speculation import MAX_DRAFT
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import Segment
from tests.engine.llama.tiny_models import N_VOCAB

N_SEQ_MAX = 4
N_CTX = 512
N_ROWS = 64

TEXT = """The lighthouse keeper of the island is called Maria. She has three dogs, all of them black, and a boat with a
red sail. Every morning she rows to the harbour, where old Peter sells bread, apples and yesterday's newspaper. In 1974
a storm took the roof of the church; since then the bell hangs in a tree and rings when the wind turns. Nobody on the
island owns a clock. When the ferry comes late, the children say that the sea has swallowed it, and they draw whales on
the wall of the school. The teacher, Mister Okafor, writes the date above each whale. He came from the city to stay for
a year, and that was eleven years ago. On Sundays he plays chess with the keeper and always loses, because he looks at
the water and not at the board. The doctor visits once a month, pulls teeth and repairs the radio."""

Logits = npt.NDArray[np.float32]


@dataclass
class ForcedSampler:
    """Says `script`, token by token."""

    script: list[int]
    logits: list[Logits] = field(default_factory=list)

    def close(self) -> None: ...


class ForcedRunner(LlamaRunner):
    """The real model, but for the choice of tokens."""

    def __init__(self, model: Model, memory: KVMemory, **options: int) -> None:
        super().__init__(model, memory, **options)
        self.next_script: list[int] = []

    def new_sampler(self, params: SamplingParams, prompt: tuple[int, ...] = ()) -> Sampler:
        return ForcedSampler(list(self.next_script))

    def sample(self, sampler: Sampler, row: int) -> int:
        assert isinstance(sampler, ForcedSampler)
        assert self._wants_logits[row], "the row has logits"
        sampler.logits.append(self.logits(row))
        return sampler.script[len(sampler.logits) - 1]

    def is_end_of_generation(self, token_id: int) -> bool:
        return False  # a script ends by its length

    def logits(self, row: int) -> Logits:
        pointer = self._model.library.api.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,)).copy()


@dataclass
class Bench:
    """A model in a small context; cores come and go on it."""

    runner: ForcedRunner

    def tokens(self, seed: int, n: int) -> list[int]:
        """`n` token ids, others for every seed: of a text for a model that has learned to read, else at random."""
        if self.runner.vocab_size == N_VOCAB:
            return [random.Random(f"{seed}/{i}").randrange(3, N_VOCAB) for i in range(n)]
        text = self.runner._model.vocabulary.encode([Segment(TEXT, special=False)])
        start = random.Random(seed).randrange(len(text))
        return [text[(start + i) % len(text)] for i in range(n)]

    @functools.cached_property
    def prefix(self) -> list[int]:
        return self.tokens(1, 60)

    @functools.cached_property
    def tail(self) -> list[int]:
        return self.tokens(2, 40)

    @functools.cached_property
    def other(self) -> list[int]:
        return self.tokens(3, 30)

    def core(self, *, host_cache_bytes: int = 0, speculates: bool = False) -> EngineCore:
        """A core with empty memory. Without speculation its steps do not depend on how long steps take."""
        self.runner.clear()
        return EngineCore(self.runner, host_cache_bytes=host_cache_bytes, speculates=speculates)

    def add(self, core: EngineCore, name: str, prompt: list[int], script: list[int], **names) -> ForcedSampler:
        self.runner.next_script = script
        core.add_request(AddRequest(name, tuple(prompt), SamplingParams(), len(script), "team", **names))
        sampler = core._sequences[name].sampler
        assert isinstance(sampler, ForcedSampler)
        return sampler

    def alone(self, prompt: list[int], script: list[int]) -> list[Logits]:
        """One request, cold."""
        core = self.core()
        sampler = self.add(core, "alone", prompt, script)
        finish(core)
        return sampler.logits

    def rows(self, seq_id: int, start: int, token_ids: list[int], *, beside: tuple[int, ...] = ()) -> Logits:
        """Computes them in one step from position `start` on, and a first token in each stream of `beside`; returns
        the last row's logits."""
        others = [other for other in beside if other != seq_id]
        plan = sorted([(seq_id, start + i, t) for i, t in enumerate(token_ids)] + [(other, 0, 5) for other in others])
        ids, positions, tokens = map(list, zip(*plan, strict=True))
        last = max(row for row, (owner, _, _) in enumerate(plan) if owner == seq_id)
        wants_logits = [row == last for row in range(len(plan))]
        batch = Batch(tokens, positions, ids, wants_logits)
        assert self.runner.execute(batch) == 0
        logits = self.runner.logits(last)
        for other in others:
            self.runner.seq_rm(other, 0)
        return logits


def rows_with_logits(batch: Batch) -> list[int]:
    return [row for row, wanted in enumerate(batch.wants_logits) if wanted]


class Record:
    """Records what is done to native memory from its making on; can do it again without the decodes that failed."""

    def __init__(self, model: Bench) -> None:
        self._model = model
        self._done: list[tuple[str, tuple[Any, ...], Any]] = []
        self.n_failed = 0
        for name in ("execute", "seq_rm", "seq_cp", "seq_state", "restore_seq"):
            setattr(model.runner, name, functools.partial(self._do, name, getattr(model.runner, name)))

    def _do(self, name: str, native: Callable[..., Any], *args: Any) -> Any:
        result = native(*args)
        if name == "execute" and result != 0:
            self.n_failed += 1
            return result
        self._done.append((name, args, self._rows(args[0]) if name == "execute" else result))
        return result

    def _rows(self, batch: Batch) -> list[Logits]:
        return [self._model.runner.logits(row) for row in rows_with_logits(batch)]

    def end(self) -> None:
        for name in ("execute", "seq_rm", "seq_cp", "seq_state", "restore_seq"):
            delattr(self._model.runner, name)

    def replay(self) -> None:
        """Asserts that every decode comes to the same logits, and every state of a sequence to the same bytes."""
        context = self._model.runner
        context.clear()
        states: dict[int, npt.NDArray[np.uint8]] = {}
        for name, args, result in self._done:
            if name == "restore_seq":
                args = (args[0], states[id(args[1])])
            found = getattr(context, name)(*args)
            if name == "execute":
                assert found == 0, "a decode that was good is good again"
                assert all(map(np.array_equal, self._rows(args[0]), result)), "logits, to the bit"
            elif name == "seq_state":
                states[id(result)] = found
                assert np.array_equal(found, result), "the state of a sequence, to the bit"


def finish(core: EngineCore) -> list[RequestOutput]:
    for _ in range(5_000):
        if not core.has_work:
            core.check_integrity()
            return core.take_outputs()
        core.step()
    raise AssertionError("some request never ends")


def difference(found: list[Logits], wanted: list[Logits]) -> float:
    assert len(found) == len(wanted)
    return max(float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=True))


def bench(path: Path, num_pool_cells: int | None = None) -> Iterator[Bench]:
    """With `num_pool_cells`, unified memory, and ids for branches besides those of the running sequences."""
    model = load_model(path, n_gpu_layers=0)
    if num_pool_cells is None:
        memory = KVMemory(KVLayout.PARTITIONED, N_CTX, N_SEQ_MAX, N_SEQ_MAX, N_SEQ_MAX * N_CTX)
    else:
        memory = KVMemory(KVLayout.UNIFIED, N_CTX, N_SEQ_MAX, 3 * N_SEQ_MAX, num_pool_cells)
    runner = ForcedRunner(model, memory, n_ubatch=N_ROWS, n_threads=1, max_outputs=1 + MAX_DRAFT)
    yield Bench(runner)
    runner.close()
    model.close()
