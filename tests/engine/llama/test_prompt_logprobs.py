"""Log-probabilities of prompts by the real model are those of a plain evaluation with llama.cpp."""

from __future__ import annotations

import pytest

from inferd.config import KVLayout, KVMemory
from inferd.engine.batch import MAX_SCORED_ROWS
from inferd.engine.core import EngineCore
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.logits.sampling import log_softmax
from inferd.engine.messages import AddRequest
from inferd.engine.runner import Batch
from inferd.sampling_params import SamplingParams
from tests.engine.llama.conftest import run

TEXT = "The capital of France is Paris, and the capital of Italy is Rome. Grüße aus 世界! " * 3
MAX_CONTEXT = 256
MAX_ERROR = 0.02


@pytest.fixture(params=[KVLayout.PARTITIONED, KVLayout.UNIFIED])
def runner(request, loaded):
    memory = KVMemory(request.param, MAX_CONTEXT, 2, 2, 2 * MAX_CONTEXT)
    runner = LlamaRunner(loaded.model, memory, n_ubatch=128, n_threads=1, max_outputs=66)
    yield runner
    runner.close()


def plainly(runner: LlamaRunner, token_ids: tuple[int, ...]) -> list[float]:
    """Log-probability of each token but the first. In pieces of 64 rows, as the engine computes them: llama.cpp's
    attention of fewer rows is another one, whose log-probabilities differ by 0.03 on average."""
    found: list[float] = []
    for start in range(0, len(token_ids) - 1, MAX_SCORED_ROWS):
        piece = list(token_ids[start : min(start + MAX_SCORED_ROWS, len(token_ids) - 1)])
        num_rows = len(piece)
        batch = Batch(piece, list(range(start, start + num_rows)), [0] * num_rows, [True] * num_rows)
        assert runner.execute(batch) == 0
        rows = (log_softmax(runner.logits(row)) for row in range(num_rows))
        found += [float(row[token_ids[start + place]]) for place, row in enumerate(rows, start=1)]
    runner.clear()
    return found


def test_prompt_logprobs_are_those_of_a_plain_evaluation(loaded, runner) -> None:
    token_ids = loaded.encode(TEXT)
    expected = plainly(runner, token_ids)
    core = EngineCore(runner, speculates=False)
    if runner.num_pool_cells is None:  # in one pool its rows would be in the same piece
        core.add_request(loaded.request("Once upon a time", 8, name="other"))
        core.step()
    core.add_request(AddRequest("r", token_ids, SamplingParams(prompt_logprobs=2), 0, "team"))
    outputs = run(core)
    found = [one for output in outputs for one in output.prompt_logprobs]
    assert tuple(one.token_id for one in found) == token_ids
    assert len([output for output in outputs if output.prompt_logprobs]) > 1, "in steps of at most 66 rows with logits"
    assert max(abs(one.logprob - other) for one, other in zip(found[1:], expected, strict=True)) < MAX_ERROR
    assert all(one.rank == 1 or one.logprob <= one.top[0].logprob for one in found[1:])


def test_token_bytes_of_control_tokens_are_their_names(loaded) -> None:
    vocabulary = loaded.model.vocabulary
    token_ids = loaded.encode("<|im_start|>é")
    assert b"".join(map(vocabulary.token_bytes, token_ids)).decode() == "<|im_start|>é"
    assert vocabulary.piece(token_ids[0]) == b""
