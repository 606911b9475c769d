"""Real models keep the contract of the runner protocol: the demo model, and a tiny one of each kind of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.config import KVLayout, KVMemory
from inferd.engine.llama.loading import load_model
from inferd.engine.llama.runner import LlamaRunner
from tests.engine.llama.tiny_models import WRITERS, write_plain, write_window
from tests.engine.runner_contract import RunnerContract

NUM_SEQUENCES = 4
CONTEXT = 256
PARTITIONED = KVMemory(KVLayout.PARTITIONED, CONTEXT, NUM_SEQUENCES, NUM_SEQUENCES, NUM_SEQUENCES * CONTEXT)
UNIFIED = KVMemory(KVLayout.UNIFIED, CONTEXT, 2, NUM_SEQUENCES, 2 * CONTEXT)
MODELS = {
    "smollm2": (None, PARTITIONED),
    **{kind: (write, PARTITIONED) for kind, write in WRITERS.items()},
    "unified": (write_plain, UNIFIED),
    "unified-window": (write_window, UNIFIED),
}


@pytest.fixture(scope="module", params=MODELS)
def loaded_runner(
    request: pytest.FixtureRequest, model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaRunner]:
    write, memory = MODELS[request.param]
    path = model_path
    if write is not None:
        path = tmp_path_factory.mktemp("models") / "tiny.gguf"
        write(path)
    model = load_model(path, n_gpu_layers=0)
    runner = LlamaRunner(model, memory, n_ubatch=64, n_threads=1)
    yield runner
    runner.close()
    model.close()


class TestLlamaRunner(RunnerContract):
    """Real memory and logits."""

    tolerance = 0.05

    @pytest.fixture
    def runner(self, loaded_runner: LlamaRunner) -> LlamaRunner:
        loaded_runner.clear()
        return loaded_runner
