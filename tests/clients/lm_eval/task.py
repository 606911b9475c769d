"""A multiple-choice task of 200 items as lm-eval reads it: which words belong to a group.

The hub's data sets are not needed. Every context with a choice has NUM_TOKENS tokens of SmolLM2, so that
llama-perplexity, which cuts its text into pieces of one length, can score the same items.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

NAME = "inferd_groups"
ANSWERS = "inferd_answers"
"""The task whose items are answered with a text."""
NUM_ITEMS = 200
NUM_TOKENS = 10
# Each word is one token behind a space.
GROUPS = {
    "animals": "dog cat horse cow bird fish sheep lion bear wolf snake mouse",
    "colors": "red blue green yellow black white pink brown gray orange purple",
    "foods": "bread rice meat cheese soup cake fruit egg milk salt sugar butter",
    "countries": "France Germany China India Japan Italy Spain Canada Mexico Brazil Egypt Russia",
    "materials": "wood stone glass metal paper cotton iron steel plastic gold silver clay",
}
_CHOICES = ("{0}", "the {0}", "{0} and {1}", "the {0} and {1}")
"""Choices of one to four tokens."""
_YAML = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
test_split: test
doc_to_text: "{{{{context}}}}"
num_fewshot: 0
"""
_CHOICE = """\
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""
_ANSWER = """\
output_type: generate_until
doc_to_target: "{{choices[answer]}}"
generation_kwargs:
  until: [","]
  max_gen_toks: 4
metric_list:
  - metric: exact_match
"""


@dataclass(frozen=True)
class Item:
    """Attributes:
    answer: the index of the right choice.
    """

    context: str
    choices: tuple[str, ...]
    answer: int

    @property
    def texts(self) -> list[str]:
        """The context with each choice."""
        return [f"{self.context} {choice}" for choice in self.choices]


def make_items() -> list[Item]:
    """Return the items, the same each time."""
    rng = random.Random(1)
    items: list[Item] = []
    for number in range(NUM_ITEMS):
        num_choice_tokens = 1 + number % len(_CHOICES)
        group, *others = rng.sample(sorted(GROUPS), 4)
        num_free = NUM_TOKENS - num_choice_tokens - 2  # without the group and its colon; a word and its comma take two
        *shown, first, second = rng.sample(GROUPS[group].split(), num_free // 2 + 2)
        pairs = [(first, second), *(rng.sample(GROUPS[other].split(), 2) for other in others)]
        choices = [_CHOICES[num_choice_tokens - 1].format(*pair) for pair in pairs]
        right = choices[0]
        rng.shuffle(choices)
        context = " The" * (num_free % 2) + f" {group}:" + "".join(f" {word}," for word in shown)
        items.append(Item(context, tuple(choices), choices.index(right)))
    return items


def write_task(folder: Path) -> None:
    """Write the items, and a yaml for each task that has them."""
    data = folder / f"{NAME}.jsonl"
    lines = [{"context": item.context, "choices": item.choices, "answer": item.answer} for item in make_items()]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, kind in ((NAME, _CHOICE), (ANSWERS, _ANSWER)):
        (folder / f"{name}.yaml").write_text(_YAML.format(name=name, path=data) + kind)
