"""The same work as a workload's, by a bare loop that knows all requests beforehand: the least that it can take.

`python -m scripts.benchmarks.oracle 8` prints the seconds for so many users behind one system prompt, two questions
each: the prefix once, copied; then all first questions in one step, all answers side by side, and so again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from inferd.config import KVLayout, KVMemory
from inferd.engine.llama.loading import load_model
from inferd.engine.llama.machine import available_cores
from inferd.engine.llama.runner import LlamaRunner
from inferd.tokenizer import Segment
from scripts.benchmarks.bare import Bare, Prompt
from scripts.benchmarks.model_file import demo_model
from scripts.benchmarks.prompts import words
from scripts.benchmarks.workloads import ANSWER_TOKENS, SHARED_WORDS


def cold_prefix(bare: Bare, prefix: Prompt, questions: list[list[Prompt]]) -> None:
    """`questions`: for each turn, each user's."""
    bare.prefill({0: prefix})
    for seq_id in range(1, len(questions[0])):
        bare.copy(0, seq_id)
    for turn in questions:
        token_ids = bare.prefill(dict(enumerate(turn)))
        # The last token of an answer is sampled, not computed: it comes with the next question.
        bare.decode(token_ids, ANSWER_TOKENS - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("users", type=int)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    model = load_model(arguments.model or demo_model())
    num_users = arguments.users
    memory = KVMemory(KVLayout.PARTITIONED, 4096, num_users, num_users, 4096 * num_users)
    runner = LlamaRunner(model, memory, n_ubatch=512, n_threads=available_cores())
    runner.warm_up()
    encode = model.vocabulary.encode

    def ids(text: str) -> Prompt:
        return tuple(encode([Segment(text, True)]))

    prefix = ids(f"<|im_start|>system\n{words(SHARED_WORDS, 7)}<|im_end|>\n<|im_start|>user\nWhat about ")
    asked = [ids(f"{words(2, i)}?<|im_end|>\n<|im_start|>assistant\n") for i in range(arguments.users)]
    again = ids(" so<|im_end|>\n<|im_start|>user\nAnd why is that?<|im_end|>\n<|im_start|>assistant\n")
    print("warm", flush=True)
    started = time.perf_counter()
    cold_prefix(Bare(runner), prefix, [asked, [again] * arguments.users])
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
