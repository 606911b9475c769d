"""The tokeniser matrix: processor time of a megabyte of each hostile text in each pre-tokenizer of llama.cpp."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.engine.llama.test_tokenizers import cpu_s, hostile_texts
from tests.engine.llama.tiny_vocabularies import PRE_TOKENIZERS, load_vocabulary, write_pre_tokenizer

MIB = 2**20
GOAL_S = 2.0
NUM_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Seconds of processor time until a text was tokens, or refused."""

    pre_tokenizer: str
    text: str
    cpu_s: float


def measure_tokenisers() -> list[Tokenised]:
    """Measures all, and prints the slowest. A crash ends the process, and names its vocabulary."""
    found = []
    for pre_tokenizer in PRE_TOKENIZERS:
        print(f"\rtokenisers: {pre_tokenizer:40}", end="", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "v.gguf"
            write_pre_tokenizer(path, pre_tokenizer)
            vocabulary = load_vocabulary(path)
        for name, text in hostile_texts(vocabulary, MIB).items():
            found.append(Tokenised(pre_tokenizer, name, cpu_s(vocabulary, text)))
    found.sort(key=lambda row: row.cpu_s, reverse=True)
    num_slow = sum(row.cpu_s > GOAL_S for row in found)
    print(f"\rtokenisers: {num_slow} of {len(found)} texts of 1 MiB took more than {GOAL_S:.0f} s; the slowest:")
    for row in found[:NUM_SHOWN]:
        print(f"  {row.pre_tokenizer:26}{row.text:26}{row.cpu_s:7.2f} s")
    return found
