"""Text and vectors of one model take turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferd.engine.core import EngineCore
from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.messages import AddRequest, EmbedRequest, FinishReason, TrafficClass
from inferd.engine.model_core import ModelCore
from tests.engine.driver import request
from tests.fake_embedder import FakeEmbedder, fake_embeddings
from tests.fakes import FakeClock, FakeRunner

DEFAULT = TrafficClass.DEFAULT


def model_core(text, *, max_rows=64, **options):
    embeddings = fake_embeddings(lambda: not text.has_work, max_rows=max_rows)
    return ModelCore({AddRequest: text, EmbedRequest: embeddings}, **options)


def test_a_large_request_for_vectors_does_not_hold_up_a_decode_and_ends_too():
    runner = FakeRunner()
    core = model_core(EngineCore(runner), max_rows=256)
    core.add_request(EmbedRequest("vectors", ((1,) * 2000,), "a"))
    text = request("text", b"hello", 10)
    core.add_request(text)
    outputs = []
    for _ in range(12):
        core.step()
        outputs += core.take_outputs()
    (end,) = [output for output in outputs if output.finish_reason is not None and output.request_id == "text"]
    assert end.finish_reason is FinishReason.LENGTH
    while core.has_work:
        core.step()
    (vectors,) = core.take_outputs()
    assert (vectors.request_id, vectors.embeddings.shape) == ("vectors", (1, FakeEmbedder.embedding_size))
    core.check_integrity()
    core.close()
    assert runner.closed


def test_what_ends_all_ends_both_kinds_and_the_model_is_freed_last():
    freed = []
    core = model_core(EngineCore(FakeRunner()), release=lambda: freed.append(1))
    core.add_request(EmbedRequest("vectors", ((1,),), "a"))
    core.add_request(request("text", b"hello", 10))
    core.abort_all("gone")
    assert {output.finish_reason for output in core.take_outputs()} == {FinishReason.ERROR}
    assert not core.has_work
    assert freed == []
    core.close()
    assert freed == [1]


def test_a_model_of_vectors_only_has_a_speed():
    core = ModelCore({EmbedRequest: fake_embeddings()})
    core.add_request(EmbedRequest("vectors", ((1,) * 50,), "a"))
    core.step()
    assert core.speed.prompt_tokens_per_s > 0
    core.check_integrity()
    core.take_outputs()
    core.close()


@pytest.mark.parametrize("batch", ["vectors", "text"])
def test_batch_of_one_kind_gets_a_tenth_of_the_time_beside_the_other_kind(batch):
    clock = FakeClock()
    text = EngineCore(FakeRunner(clock=clock, step_ms=5.0, cells_per_sequence=1024), clock)
    embeddings = EmbeddingCore(
        lambda: FakeEmbedder(clock=clock, row_ms=0.1, max_rows=64),
        clock,
        max_step_ms=50.0,
        is_alone=lambda: not text.has_work,
    )
    core = ModelCore({AddRequest: text, EmbedRequest: embeddings}, clock_ns=clock)
    classes = {batch: TrafficClass.BATCH}
    for number in range(200):
        name = f"vectors-{number}"
        core.add_request(EmbedRequest(name, ((1,) * 64,), "a", traffic_class=classes.get("vectors", DEFAULT)))
    core.add_request(replace(request("text", b"hello", 600), traffic_class=classes.get("text", DEFAULT)))
    took = {"text": 0, "vectors": 0}
    for name, one in (("text", text), ("vectors", embeddings)):
        count(one, name, took, clock)
    while text.has_work and embeddings.has_work:
        core.step()
        core.take_outputs()
    assert 0.05 < took[batch] / sum(took.values()) < 0.15
    while core.has_work:  # alone, it gets all
        core.step()
        core.take_outputs()


def count(core, name, took, clock):
    step = core.step

    def counted():
        began_ns = clock()
        step()
        took[name] += clock() - began_ns

    core.step = counted


def test_batch_of_both_kinds_takes_turns():
    clock = FakeClock()
    core = model_core(EngineCore(FakeRunner(clock=clock), clock), max_rows=64, clock_ns=clock)
    for number in range(4):
        core.add_request(EmbedRequest(f"{number}", ((1,) * 64,), "a", traffic_class=TrafficClass.BATCH))
    core.add_request(replace(request("text", b"hello", 4), traffic_class=TrafficClass.BATCH))
    for _ in range(4):
        core.step()
    assert not core.has_work
