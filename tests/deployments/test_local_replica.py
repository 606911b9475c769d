"""One engine on one file: from configuration to ready, and back."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inferd.config import KVLayout, ModelConfig
from inferd.deployments import local_replica
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.core import EngineCore
from inferd.engine.engine import MAX_CRASHES
from inferd.engine.messages import AddRequest, EmbedRequest, FinishReason, RequestOutput
from inferd.engine.model_core import ModelCore
from inferd.errors import ConfigError, OverloadedError
from inferd.sampling_params import SamplingParams
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.messages import Message
from tests.fake_embedder import fake_model_core
from tests.fakes import FakeRunner
from tests.serving.provider import TEMPLATE, FakeModel

pytestmark = pytest.mark.anyio

REQUEST = AddRequest("r", tuple(b"hello"), SamplingParams(), 3, tenant="acme")


class Loader:
    """Stands for llama.cpp; keeps what it was asked for."""

    def __init__(self, template: str | None = TEMPLATE, *, is_causal: bool = True) -> None:
        self.model = FakeModel(template, is_causal=is_causal)
        self.options: dict[str, Any] = {}

    def load_model(self, path: Path, *, n_gpu_layers: int, pooling: str | None) -> FakeModel:
        self.options |= {"path": path, "n_gpu_layers": n_gpu_layers}
        return self.model

    def build_core(self, model: FakeModel, config: ModelConfig, compute_turn: ComputeTurn) -> ModelCore:
        assert model is self.model
        self.options |= {"config": config, "compute_turn": compute_turn}
        memory = config.kv_memory
        runner = FakeRunner(max_sequences=memory.n_seq_max, cells_per_sequence=memory.max_context)
        generation = EngineCore(runner) if model.makes_text else None
        return fake_model_core(generation, model.close, is_causal=model.is_causal)


@pytest.fixture
def config(tmp_path: Path) -> ModelConfig:
    source = tmp_path / "tiny.gguf"
    source.write_bytes(b"weights")
    return ModelConfig("tiny", source, str(source), max_context=64, n_parallel=2, n_ubatch=32, n_threads=1)


def loading(monkeypatch: pytest.MonkeyPatch, loader: Loader) -> Loader:
    monkeypatch.setattr(local_replica, "load_model", loader.load_model)
    monkeypatch.setattr(local_replica, "build_core", loader.build_core)
    return loader


async def test_start_loads_the_configured_model_on_the_shared_compute_turn(config, monkeypatch):
    loader, turn = loading(monkeypatch, Loader()), ComputeTurn()
    replica = LocalReplica(config, turn)
    await replica.start()
    assert loader.options == {
        "path": config.source,
        "n_gpu_layers": -1,
        "config": config,
        "compute_turn": turn,
    }
    assert (replica.key, replica.max_context, replica.is_ready) == ("tiny", 64, True)
    await replica.stop()


async def test_it_is_ready_between_start_and_stop_and_takes_requests_only_then(config, monkeypatch):
    loading(monkeypatch, Loader())
    replica = LocalReplica(config, ComputeTurn())
    assert not replica.is_ready
    with pytest.raises(OverloadedError):
        replica.submit(REQUEST)
    await replica.start()
    outputs: list[RequestOutput] = []
    await replica.submit(REQUEST).forward(outputs.append)
    assert outputs[-1].finish_reason is FinishReason.LENGTH
    await replica.stop()
    assert not replica.is_ready
    with pytest.raises(OverloadedError):
        replica.submit(REQUEST)


async def test_model_whose_file_is_written_to_while_it_loads_fails_to_start(config, monkeypatch):
    loader, replica = loading(monkeypatch, Loader()), LocalReplica(config, ComputeTurn())
    begun, may_end = threading.Event(), threading.Event()

    def load_slowly(path, **options):
        begun.set()
        may_end.wait()
        return loader.model

    monkeypatch.setattr(local_replica, "load_model", load_slowly)
    starting = asyncio.create_task(replica.start())
    await asyncio.to_thread(begun.wait)
    # With a lease the writer waits until the model is stopped.
    writer = threading.Thread(target=config.source.write_bytes, args=(b"other",))
    writer.start()
    while replica.failure is None:
        looking = asyncio.create_task(replica.look_at_files())
        await asyncio.sleep(0.01)
    may_end.set()
    with pytest.raises(ConfigError, match=re.escape(str(config.source))):
        await starting
    await looking
    await asyncio.to_thread(writer.join)


async def test_stopping_one_that_never_started_does_nothing(config):
    await LocalReplica(config, ComputeTurn()).stop()


async def test_the_configured_template_replaces_the_models(config, monkeypatch):
    loading(monkeypatch, Loader())
    replica = LocalReplica(replace(config, chat_template="{{ messages[0].content }}!"), ComputeTurn())
    await replica.start()
    prompt = replica.chat_format.prompt(ChatRequest(model="m", messages=[Message("user", "hi")]))
    assert "".join(segment.text for segment in prompt.segments) == "hi!"
    await replica.stop()


@pytest.mark.parametrize(("template", "what"), [(None, "no chat template"), ("{% if %}", "line 1")])
async def test_a_model_without_a_usable_template_does_not_start_and_is_freed(config, monkeypatch, template, what):
    loader = loading(monkeypatch, Loader(template))
    replica = LocalReplica(config, ComputeTurn())
    with pytest.raises(ConfigError, match=what) as caught:
        await replica.start()
    assert "tiny.gguf" in caught.value.message
    assert loader.model.closed
    assert not replica.is_ready
    await replica.stop()


async def test_the_fingerprint_names_the_model_and_how_it_is_run(config, monkeypatch):
    async def fingerprint(changed: ModelConfig) -> str:
        loading(monkeypatch, Loader())
        replica = LocalReplica(changed, ComputeTurn())
        await replica.start()
        await replica.stop()
        return replica.fingerprint

    first = await fingerprint(config)
    assert first.startswith("fp_")
    assert await fingerprint(config) == first
    others = [
        replace(config, max_context=32),
        replace(config, n_parallel=1),
        replace(config, kv_cells=100),
        replace(config, kv_layout=KVLayout.UNIFIED),
        replace(config, n_threads=2),
        replace(config, chat_template=TEMPLATE + " "),
    ]
    assert len({first, *[await fingerprint(other) for other in others]}) == 7


async def test_an_embedding_model_needs_no_chat_template_and_makes_vectors_only(config, monkeypatch):
    loader = loading(monkeypatch, Loader(None, is_causal=False))
    replica = LocalReplica(config, ComputeTurn())
    await replica.start()
    assert (replica.makes_text, replica.chats, replica.max_embedding_tokens) == (False, False, 32)
    output = await replica.submit(EmbedRequest("r", ((1, 2),), tenant="acme")).forward(lambda _: None)
    assert output.embeddings.shape == (1, replica.embedding_size)
    await replica.stop()
    assert loader.model.closed


async def test_a_model_for_vectors_that_could_make_text_may_lack_a_template_too(config, monkeypatch):
    loader = loading(monkeypatch, Loader(None))
    loader.model.is_for_embeddings = True
    replica = LocalReplica(config, ComputeTurn())
    await replica.start()
    assert (replica.makes_text, replica.chats, replica.max_embedding_tokens) == (True, False, 64)
    await replica.stop()


async def test_of_an_engine_that_has_failed_grammars_are_closed_before_the_model(config, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(FakeModel, "close", lambda self: order.append("model"))
    loading(monkeypatch, Loader())
    replica = LocalReplica(config, ComputeTurn())
    await replica.start()
    close = replica.constraints.close
    monkeypatch.setattr(replica.constraints, "close", lambda: (order.append("grammars"), close()))
    monkeypatch.setattr(EngineCore, "step", lambda self: 1 / 0)
    for _ in range(MAX_CRASHES):
        outputs: list[RequestOutput] = []
        assert (await replica.submit(REQUEST).forward(outputs.append)).finish_reason is FinishReason.ERROR
    await replica._engine._ended.wait()
    assert order == []
    await replica.stop()
    assert order == ["grammars", "model"]
