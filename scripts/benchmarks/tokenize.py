"""`scripts/bench tokenize`: processor time of one thread for a megabyte of text, ordinary and hostile."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path

from inferd.engine.llama.loading import load_model
from inferd.engine.llama.vocabulary import MAX_CPU_S
from inferd.errors import InvalidRequestError
from inferd.tokenizer import Segment
from scripts.benchmarks.kernel import demo_model

MIB = 2**20
TEXTS = {
    "words": "The quick brown fox jumps over the lazy dog.\n",
    "one letter": "Z",
    "digits": "9",
    "blanks": " ",
    "line breaks": "\n",
    "accents": "é",
    "ideographs": "漢",
    "emoji": "😀",
    "signs": "=",
    "blanks before ideographs": " " * 5000 + "漢",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench tokenize", description=__doc__)
    parser.add_argument("models", type=Path, nargs="*", help="GGUFs; default: the demo model")
    for path in parser.parse_args().models or [demo_model()]:
        measure(path)


def measure(path: Path) -> None:
    """Print a row for each text. A text that takes more than MAX_CPU_S is refused soon after it."""
    model = load_model(path, n_gpu_layers=0)
    vocabulary = model.vocabulary
    control = next(iter(vocabulary.control_texts), "")
    print(f"{path.name}: seconds of a core for 1 MiB; a refusal comes after {MAX_CPU_S:.1f}")
    for name, unit in {**TEXTS, "control texts": f"{control} ab "}.items():
        text, num_tokens = unit * (MIB // len(unit.encode())), 0
        began_s = time.thread_time()
        with suppress(InvalidRequestError):
            num_tokens = len(vocabulary.encode([Segment(text, special=True)]))
        print(f"  {name:26} {time.thread_time() - began_s:5.2f}  {num_tokens or 'refused':>9}")
    model.close()


if __name__ == "__main__":
    main()
