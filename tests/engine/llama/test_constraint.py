"""Constraints on the real vocabulary: every end token, control tokens, text that parses whatever is wanted."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar.compiler import ConstraintCompiler
from inferd.engine.messages import FinishReason
from inferd.engine.runner import Batch
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import Segment
from tests.engine.llama.conftest import Loaded, run
from tests.engine.llama.forced import rows_with_logits

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
        assert matcher.is_ready(10.0)
        mask = matcher.take_mask()
    assert mask is not None
    for text in vocabulary.control_texts:
        (token_id,) = vocabulary.encode([Segment(text, special=True)], add_bos=False)
        assert mask[token_id] == (token_id in vocabulary.end_of_generation)
    assert all(mask[token_id] for token_id in vocabulary.end_of_generation)
    (letter,) = vocabulary.encode([Segment("a", special=False)])
    assert mask[letter]


def test_logprobs_agree_with_a_softmax_of_the_raw_logits(
    loaded: Loaded, compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw: list[np.ndarray] = []
    execute = loaded.runner.execute

    def keep_logits(batch: Batch) -> int:
        code = execute(batch)
        raw.extend(loaded.runner.logits(row).copy() for row in rows_with_logits(batch))
        return code

    monkeypatch.setattr(loaded.runner, "execute", keep_logits)
    constraint = asyncio.run(compiler.compile(Constraint(ConstraintKind.REGEX, "[a-z ]{30}")))
    params = SamplingParams(temperature=1.3, seed=3, frequency_penalty=1.0, top_logprobs=20)
    core = loaded.core()
    core.add_request(dataclasses.replace(loaded.request("Once", 40, params=params), constraint=constraint))
    outputs = run(core)
    tokens = [token for output in outputs for token in output.logprobs]
    token_ids = [token_id for output in outputs for token_id in output.token_ids]
    assert len(tokens) == len(token_ids) == len(raw)
    for token, token_id, logits in zip(tokens, token_ids, raw, strict=True):
        exact = logits.astype(np.longdouble)
        exact = exact - np.log(np.exp(exact).sum())
        assert token.logprob == pytest.approx(float(exact[token_id]), abs=1e-9)
        best = np.argsort(-exact, kind="stable")[:20]
        assert [alternative.logprob for alternative in token.top] == pytest.approx(exact[best].astype(float), abs=1e-9)
        assert token.top[0].piece == loaded.model.vocabulary.piece(int(best[0]))
