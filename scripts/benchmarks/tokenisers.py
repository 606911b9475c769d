"""The tokeniser matrix: processor time of a megabyte of each hostile text in each pre-tokenizer of llama.cpp."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from inferd.errors import InvalidRequestError
from inferd.tokenizer import Segment
from tests.engine.llama.test_tokenizers import hostile_texts
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
    is_refused: bool


def measure_tokenisers(pre_tokenizers: Sequence[str] = PRE_TOKENIZERS) -> list[Tokenised]:
    """Measures all, a process a core, and prints the slowest. Raises BrokenProcessPool if a text ends a process."""
    found: list[Tokenised] = []
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as processes:
        for rows in processes.map(_measure, pre_tokenizers):
            found += rows
            print(f"\rtokenisers: {rows[0].pre_tokenizer:30}", end="", flush=True)
    found.sort(key=lambda row: row.cpu_s, reverse=True)
    num_slow = sum(row.cpu_s > GOAL_S and not row.is_refused for row in found)
    num_refused = sum(row.is_refused for row in found)
    print(f"\rtokenisers: of {len(found)} texts of 1 MiB {num_slow} took more than {GOAL_S:.0f} s of processor time")
    print(f"            and {num_refused} were refused; the slowest:")
    for row in found[:NUM_SHOWN]:
        refused = "refused" if row.is_refused else ""
        print(f"  {row.pre_tokenizer:26}{row.text:26}{row.cpu_s:7.2f} s  {refused}")
    return found


def _measure(pre_tokenizer: str) -> list[Tokenised]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.gguf"
        write_pre_tokenizer(path, pre_tokenizer)
        vocabulary = load_vocabulary(path)
    found = []
    for name, text in hostile_texts(vocabulary, MIB).items():
        is_refused, began_s = False, time.thread_time()
        try:
            vocabulary.encode([Segment(text, special=True)])
        except InvalidRequestError:
            is_refused = True
        found.append(Tokenised(pre_tokenizer, name, time.thread_time() - began_s, is_refused))
    return found
