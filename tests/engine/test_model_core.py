"""Text and vectors of one model take turns."""

from __future__ import annotations

from inferd.engine.core import EngineCore
from inferd.engine.messages import EmbedRequest, FinishReason
from inferd.engine.model_core import ModelCore
from tests.engine.driver import request
from tests.fake_embedder import FakeEmbedder, fake_embeddings
from tests.fakes import FakeRunner


def test_a_large_request_for_vectors_does_not_hold_up_a_decode_and_ends_too():
    runner = FakeRunner()
    core = ModelCore(EngineCore(runner), fake_embeddings(n_rows_max=256))
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
    assert (vectors.request_id, vectors.embeddings.shape) == ("vectors", (1, FakeEmbedder.n_embd))
    core.check_integrity()
    core.close()
    assert runner.closed


def test_what_ends_all_ends_both_kinds_and_the_model_is_freed_last():
    freed = []
    core = ModelCore(EngineCore(FakeRunner()), fake_embeddings(), release=lambda: freed.append(1))
    core.add_request(EmbedRequest("vectors", ((1,),), "a"))
    core.add_request(request("text", b"hello", 10))
    core.abort_all("gone")
    assert {output.finish_reason for output in core.take_outputs()} == {FinishReason.ERROR}
    assert not core.has_work
    assert freed == []
    core.close()
    assert freed == [1]


def test_a_model_of_vectors_only_has_a_speed():
    core = ModelCore(None, fake_embeddings())
    core.add_request(EmbedRequest("vectors", ((1,) * 50,), "a"))
    core.step()
    assert core.speed.prompt_tokens_per_s > 0
    core.check_integrity()
    core.take_outputs()
    core.close()
