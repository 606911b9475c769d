"""Drafts on real memory: the logits that tokens are sampled from are no further from a cold run without drafts than
cold runs of other splits are from each other, while a run with one wrong token is further."""

from __future__ import annotations

import pytest

from inferd.engine.cost_model import CostModel
from inferd.engine.speculation import MAX_DRAFT
from tests.engine.llama.forced import N_CTX, bench, difference, finish
from tests.engine.llama.test_sharing import noise, off_by_one_token
from tests.engine.llama.tiny_models import write_plain, write_window

TINY = {"plain": write_plain, "window": write_window}
MODELS = [("demo", None), ("plain", N_CTX), ("window", None), ("window", N_CTX)]


@pytest.fixture(scope="module", params=MODELS, ids=["demo", "plain, unified", "window", "window, unified"])
def model(request, model_path, tmp_path_factory):
    kind, num_pool_cells = request.param
    path = model_path
    if kind in TINY:
        path = tmp_path_factory.mktemp("models") / f"{kind}.gguf"
        TINY[kind](path)
    yield from bench(path, num_pool_cells)


@pytest.fixture(autouse=True)
def rows_are_free(monkeypatch) -> None:
    """Whatever this machine's rows cost just now."""
    monkeypatch.setattr(CostModel, "step_ms", lambda self, **rows: 1.0)


def copying(model) -> tuple[list[int], list[int]]:
    """A prompt, and an answer that copies it, leaves it twice within drafts, and ends within one."""
    prompt = model.tokens(7, 70)
    script: list[int] = []
    for start, length in [(5, 20), (2, 6), (40, 8)]:
        script += [*prompt[start : start + length], *model.tokens(20 + start, 1)]
    return prompt, script[:-1]


def test_tokens_of_drafts_are_sampled_from_the_logits_of_a_cold_run(model) -> None:
    prompt, script = copying(model)
    core = model.core(speculates=True)
    sampler = model.add(core, "r", prompt, script)
    outputs = []
    while core.has_work:
        core.step()
        core.check_integrity()
        outputs += core.take_outputs()
    assert [token_id for output in outputs for token_id in output.token_ids] == script
    usage = outputs[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), len(script))
    tokens_per_step = [len(output.token_ids) for output in outputs]
    assert max(tokens_per_step) == 1 + MAX_DRAFT, "drafts were accepted"
    assert any(1 < n < 1 + MAX_DRAFT for n in tokens_per_step[:-1]), "and cut off"
    wanted, floor = model.alone(prompt, script), noise(model, prompt, script)
    assert difference(sampler.logits, wanted) <= floor
    assert off_by_one_token(model, prompt, script, at=len(prompt) - 20) > floor, "a wrong token is caught"


@pytest.mark.parametrize(
    "model",
    [pytest.param(model, marks=pytest.mark.slow if model[0] == "demo" else ()) for model in MODELS],
    indirect=True,
)
def test_what_was_drafted_in_vain_is_not_in_memory(model) -> None:
    """A second request goes on from what the first has computed."""
    prompt, script = copying(model)
    core = model.core(speculates=True)
    model.add(core, "first", prompt, script)
    finish(core)
    more = [*prompt, *script[:-1], *model.other]
    answer = model.tail[:3]
    sampler = model.add(core, "second", more, answer)
    (usage,) = (output.usage for output in finish(core) if output.usage)
    assert usage.cached_tokens == len(prompt) + len(script) - 1
    assert difference(sampler.logits, model.alone(more, answer)) <= noise(model, more, answer)
