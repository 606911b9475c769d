"""Vectors do not depend on the steps that they come in; nobody waits for a large request of another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.embeddings.pooling import Pooling
from inferd.engine.messages import EmbedRequest, FinishReason, RequestOutput, TrafficClass
from inferd.errors import ConfigError
from inferd.usage import Usage
from tests.fake_embedder import FakeEmbedder
from tests.fakes import FakeClock

Inputs = tuple[tuple[int, ...], ...]


def core_of(embedder: FakeEmbedder, clock: FakeClock | None = None, **options) -> EmbeddingCore:
    return EmbeddingCore(lambda: embedder, clock or FakeClock(), **{"max_step_ms": 64.0, **options})


def request(name: str, *inputs: tuple[int, ...], tenant: str = "acme", **options) -> EmbedRequest:
    return EmbedRequest(name, inputs, tenant, **options)


def run(core: EmbeddingCore) -> dict[str, RequestOutput]:
    while core.has_work:
        core.step()
    outputs = core.take_outputs()
    assert len({output.request_id for output in outputs}) == len(outputs), "one output each"
    return {output.request_id: output for output in outputs}


TOKENS = st.lists(st.integers(0, 9), min_size=1, max_size=12).map(tuple)
REQUESTS = st.lists(st.lists(TOKENS, min_size=1, max_size=5).map(tuple), min_size=1, max_size=4)


@given(REQUESTS, st.integers(12, 40), st.integers(1, 4), st.booleans(), st.sampled_from([*Pooling][:3]))
def test_every_input_gets_the_vector_of_its_own_tokens(requests, num_rows, num_slots, is_causal, pooling):
    num_rows = num_rows - 11 if is_causal else num_rows
    embedder = FakeEmbedder(num_slots=num_slots, max_rows=num_rows, is_causal=is_causal, pooling=pooling)
    core = core_of(embedder)
    for number, inputs in enumerate(requests):
        core.add_request(request(f"r{number}", *inputs, tenant=f"t{number % 2}"))
    outputs = run(core)
    for number, inputs in enumerate(requests):
        output = outputs[f"r{number}"]
        wanted = np.stack([FakeEmbedder.vector(token_ids, pooling) for token_ids in inputs])
        assert np.allclose(output.embeddings, wanted, atol=1e-6)
        assert output.finish_reason is FinishReason.STOP
        assert output.usage == Usage(prompt_tokens=sum(map(len, inputs)))
    core.close()
    assert embedder.closed


def test_short_inputs_share_a_step_and_a_long_causal_one_takes_several():
    embedder = FakeEmbedder(num_slots=4, max_rows=10)
    core = core_of(embedder)
    core.add_request(request("r", (1,) * 3, (2,) * 3, (3,) * 25, (4,) * 2))
    run(core)
    assert embedder.steps == [[3, 3, 4], [10], [10], [1, 2]]


def test_beside_others_a_step_takes_no_longer_than_it_may():
    clock = FakeClock()
    embedder = FakeEmbedder(max_rows=512, clock=clock, row_ms=0.5)
    is_alone = False
    core = core_of(embedder, clock, is_alone=lambda: is_alone)
    core.add_request(request("r", (1,) * 2000))
    run(core)
    sizes = [sum(step) for step in embedder.steps]
    assert max(sizes) <= 128
    assert all(size % 64 == 0 for size in sizes[:-1])
    core.add_request(request("s", (1,) * 2000))
    embedder.steps.clear()
    is_alone = True
    run(core)
    assert embedder.steps[0] == [512]


def test_a_team_with_one_short_input_does_not_wait_for_anothers_thousand():
    embedder = FakeEmbedder(max_rows=8)
    core = core_of(embedder)
    core.add_request(request("large", *[(1,) * 8] * 100, tenant="a"))
    core.step()
    core.add_request(request("small", (2, 3), tenant="b"))
    core.add_request(request("urgent", (4,), tenant="a", traffic_class=TrafficClass.PRIORITY))
    core.step()
    core.step()
    assert [output.request_id for output in core.take_outputs()] == ["urgent", "small"]
    core.abort("large")
    (output,) = core.take_outputs()
    assert output.finish_reason is FinishReason.CANCELLED
    assert 8 <= output.usage.prompt_tokens <= 24, "what was computed"
    assert not core.has_work


def test_an_abort_in_the_middle_of_an_input_leaves_nothing_behind():
    core = core_of(FakeEmbedder(num_slots=1, max_rows=4))
    core.add_request(request("r", (1,) * 9))
    core.step()
    core.abort("r")
    core.abort("r")
    core.add_request(request("s", (5, 6)))
    outputs = run(core)
    assert outputs["r"].usage == Usage(prompt_tokens=4)
    assert np.allclose(outputs["s"].embeddings[0], FakeEmbedder.vector((5, 6)), atol=1e-6)


def test_a_step_that_fails_ends_those_in_it_and_no_other():
    embedder = FakeEmbedder(num_slots=2, max_rows=4)
    embedder.fails = [True]
    core = core_of(embedder)
    for name in "abc":
        core.add_request(request(name, (1, 2), tenant=name))
    outputs = run(core)
    reasons = [outputs[name].finish_reason for name in "abc"]
    assert reasons == [FinishReason.ERROR, FinishReason.ERROR, FinishReason.STOP]
    assert outputs["a"].embeddings is None


def test_compute_time_is_shared_by_rows_and_charged_up_to_the_limit():
    """R14: a request that takes up to twice its limit is finished, one that takes more is not."""
    clock = FakeClock()
    core = core_of(FakeEmbedder(clock=clock, row_ms=2.0), clock)
    core.add_request(request("a", (1,) * 10))
    core.add_request(request("b", (1,) * 30, max_compute_ms=50))
    core.add_request(request("c", (1,) * 200, max_compute_ms=100))
    outputs = run(core)
    assert outputs["a"].usage.compute_ms == 20
    assert (outputs["b"].finish_reason, outputs["b"].usage.compute_ms) == (FinishReason.STOP, 50)
    assert outputs["b"].embeddings is not None
    assert (outputs["c"].finish_reason, outputs["c"].usage.compute_ms) == (FinishReason.LENGTH, 100)
    assert (outputs["c"].embeddings, outputs["c"].error) == (None, None)
    assert outputs["c"].usage.prompt_tokens < 200, "the rest was not computed"


def test_the_rate_is_that_of_the_fastest_large_step_of_the_last_minute():
    clock = FakeClock()
    embedder = FakeEmbedder(clock=clock, row_ms=2.0)
    core = core_of(embedder, clock)
    assert core.speed.embedding_ms_per_token is None
    core.add_request(request("small", (1,) * 10))
    run(core)
    assert core.speed.embedding_ms_per_token is None, "a small step says little"
    for row_ms in (2.0, 1.5, 4.0):
        embedder._row_ms = row_ms
        core.add_request(request(f"at {row_ms}", (1,) * 64))
        run(core)
    assert core.speed.embedding_ms_per_token == 1.5
    clock.advance_ms(60_001)
    assert core.speed.embedding_ms_per_token is None


def test_nothing_is_made_before_the_first_request_and_what_cannot_be_made_ends_requests_not_the_engine():
    made = []

    def make() -> FakeEmbedder:
        made.append(1)
        raise ConfigError("no memory")

    core = EmbeddingCore(make, max_step_ms=50.0)
    assert made == []
    core.add_request(request("r", (1,)))
    outputs = run(core)
    assert outputs["r"].finish_reason is FinishReason.ERROR
    assert outputs["r"].error == "no memory"
    core.close()


@pytest.mark.parametrize("inputs", [(), ((),)])
def test_a_request_has_inputs_and_they_have_tokens(inputs: Inputs):
    with pytest.raises(AssertionError):
        EmbedRequest("r", inputs, "acme")
