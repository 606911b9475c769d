"""The real model answers schemas of many kinds: every complete answer validates; the rest is refused with a reason."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterable
from contextlib import closing

import jsonschema
import pytest

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar.compiler import ConstraintCompiler, GrammarError
from inferd.engine.messages import FinishReason
from inferd.sampling_params import SamplingParams
from tests.engine.llama.conftest import Loaded, run
from tests.engine.llama.schemas import schema, schema_kind

N_FIXED = 40
N_ALL = 300
MAX_TOKENS = 100


def answered(loaded: Loaded, compiler: ConstraintCompiler, numbers: Iterable[int]) -> tuple[int, int, int]:
    """How many schemas were answered to the end, cut off by the limit, refused. Each answer is checked."""
    core = loaded.core()
    refused = 0
    schemas = {f"s{number}": schema(number) for number in numbers}
    for name, wanted in schemas.items():
        constraint = Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(wanted))
        if schema_kind(int(name[1:])) == "unsupported":
            with pytest.raises(GrammarError):
                asyncio.run(compiler.compile(constraint))
            refused += 1
            continue
        compiled = asyncio.run(compiler.compile(constraint))
        params = SamplingParams(temperature=1.0, seed=len(name))
        request = loaded.request("Answer in JSON:\n", MAX_TOKENS, name, params)
        core.add_request(dataclasses.replace(request, constraint=compiled))
    texts: dict[str, str] = {}
    complete = cut = 0
    for output in run(core):
        texts[output.request_id] = texts.get(output.request_id, "") + output.text
        assert output.finish_reason not in (FinishReason.ERROR, FinishReason.CONSTRAINT), schemas[output.request_id]
        cut += output.finish_reason is FinishReason.LENGTH
        if output.finish_reason is FinishReason.STOP:
            complete += 1
            value = json.loads(texts[output.request_id])
            jsonschema.Draft202012Validator(schemas[output.request_id]).validate(value)
    return complete, cut, refused


@pytest.mark.parametrize("numbers", [range(N_FIXED), pytest.param(range(N_FIXED, N_ALL), marks=pytest.mark.slow)])
def test_every_complete_answer_validates(loaded: Loaded, numbers: range) -> None:
    with closing(loaded.model.constraint_compiler()) as compiler:
        complete, cut, refused = answered(loaded, compiler, numbers)
    assert complete + cut + refused == len(numbers)
    assert complete >= 0.75 * len(numbers)
    assert 0 < refused < 0.25 * len(numbers)
