"""Constraints on the real vocabulary: every end token, control tokens, text that parses whatever is wanted."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.constraint import ConstraintCompiler
from inferd.engine.messages import FinishReason
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import Segment
from tests.engine.llama.conftest import Loaded, run

SCHEMA = """{"type":"object","properties":{"name":{"type":"string","maxLength":20},"tags":{"type":"array",
"items":{"enum":["red","green"]},"maxItems":2}},"required":["name","tags"],"additionalProperties":false}"""


@pytest.fixture(scope="module")
def compiler(loaded: Loaded) -> Iterator[ConstraintCompiler]:
    with closing(loaded.model.constraint_compiler()) as made:
        yield made


def test_the_text_matches_at_any_temperature_and_whatever_is_biased(
    loaded: Loaded, compiler: ConstraintCompiler
) -> None:
    constraint = asyncio.run(compiler.compile(Constraint(ConstraintKind.JSON_SCHEMA, SCHEMA)))
    core = loaded.core()
    (end, *_) = sorted(loaded.model.vocabulary.end_of_generation)
    params = [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=1.5, seed=1),
        SamplingParams(temperature=1.0, seed=2, logit_bias=((end, 100.0),), top_p=0.9, frequency_penalty=1.0),
    ]
    for index, each in enumerate(params):
        request = loaded.request("Tell me a story about", 120, f"r{index}", each)
        core.add_request(dataclasses.replace(request, constraint=constraint))
    outputs = run(core)
    for index in range(len(params)):
        own = [output for output in outputs if output.request_id == f"r{index}"]
        assert own[-1].finish_reason is FinishReason.STOP
        value = json.loads("".join(output.text for output in own))
        assert len(value["name"]) <= 20
        assert set(value["tags"]) <= {"red", "green"}
        assert own[-1].usage is not None
        assert own[-1].usage.completion_tokens == sum(len(output.token_ids) for output in own)


def test_every_end_token_ends_a_match_and_no_other_control_token_gets_in(
    loaded: Loaded, compiler: ConstraintCompiler
) -> None:
    vocabulary = loaded.model.vocabulary
    matcher = asyncio.run(compiler.compile(Constraint(ConstraintKind.REGEX, r"(.|\n)*"))).matcher()
    with ThreadPoolExecutor(1) as workers:
        matcher.prepare(workers)
        mask = matcher.take_mask(10.0)
    assert mask is not None
    for text in vocabulary.control_texts:
        token_id = vocabulary.control_token(text)
        assert token_id is not None
        assert mask[token_id] == (token_id in vocabulary.end_of_generation)
    assert all(mask[token_id] for token_id in vocabulary.end_of_generation)
    (letter,) = vocabulary.encode([Segment("a", special=False)])
    assert mask[letter]
