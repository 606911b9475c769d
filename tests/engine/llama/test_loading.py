from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferd.config import KVLayout, ModelConfig
from inferd.engine.batch import MAX_SCORED_ROWS
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.kv.unified import UnifiedKVCache
from inferd.engine.llama import loading
from inferd.engine.llama.loading import build_core, load_model
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.engine.model_core import ModelCore
from inferd.errors import ConfigError
from inferd.tokenizer import Segment
from tests.engine.llama.conftest import N_THREADS, Loaded, run
from tests.engine.llama.tiny_models import WRITERS, write_other, write_plain, write_shards


def config(max_context: int, n_parallel: int = 1, n_ubatch: int = 64, **keys: object) -> ModelConfig:
    """The configuration of a model whose file is loaded already."""
    sizes = {"max_context": max_context, "n_parallel": n_parallel, "n_ubatch": n_ubatch, "n_threads": N_THREADS}
    return ModelConfig("m", Path(), "", **sizes, **{"host_cache_mib": 0, "speculation": True, **keys})


def core_on(model: Model, max_context: int, **keys: object) -> ModelCore:
    return build_core(model, config(max_context, **keys), ComputeTurn())


def runner_of(core: ModelCore) -> LlamaRunner:
    return core._core_of[AddRequest]._runner


@pytest.mark.parametrize("kept", [0, 3, 4, 100, 1_000_000])
def test_a_broken_file_is_a_configuration_error(model_path, tmp_path, kept) -> None:
    broken = tmp_path / "broken.gguf"
    with model_path.open("rb") as whole:
        broken.write_bytes(whole.read(kept))
    for header_only in (False, True):
        with pytest.raises(ConfigError, match=r"broken\.gguf: .*was the download cut off\?"):
            load_model(broken, header_only=header_only)


@pytest.mark.parametrize("header_only", [False, True])
@pytest.mark.parametrize(
    ("architecture", "kind", "said"),
    [
        ("clip", "mmproj", "an encoder of images or audio"),
        ("imatrix", "imatrix", "no model but data about one"),
        ("llama", "adapter", "an adapter"),
        ("zork", "model", "does not know its architecture 'zork'"),
    ],
)
def test_file_without_a_model_is_named_for_what_it_is(tmp_path, caplog, architecture, kind, said, header_only) -> None:
    write_other(tmp_path / "other.gguf", architecture, kind)
    with pytest.raises(ConfigError, match=rf"other\.gguf: .*{said}"):
        load_model(tmp_path / "other.gguf", header_only=header_only)
    assert not caplog.records, "the cause stands in the message, not in lines above it"


@pytest.mark.parametrize("header_only", [False, True])
def test_shards_load_by_the_first_and_through_links_of_the_hugging_face_cache(tmp_path, header_only) -> None:
    shards = write_shards(tmp_path / "s.gguf")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, shard in enumerate(shards):
        blob = shard.rename(tmp_path / f"{number:064x}")
        (snapshot / shard.name).symlink_to(blob)
    load_model(snapshot / shards[0].name, header_only=header_only).close()
    with pytest.raises(ConfigError, match="a later shard of a split model: name the first one"):
        load_model(snapshot / shards[1].name, header_only=header_only)
    (snapshot / "renamed.gguf").symlink_to(tmp_path / f"{0:064x}")
    with pytest.raises(ConfigError, match="the first shard of a split model under another name"):
        load_model(snapshot / "renamed.gguf", header_only=header_only)


@pytest.mark.parametrize("header_only", [False, True])
def test_shard_that_is_missing_or_cut_is_said(tmp_path, header_only) -> None:
    shards = write_shards(tmp_path / "s.gguf")
    whole = shards[2].read_bytes()
    shards[2].write_bytes(whole[:-2000])
    with pytest.raises(ConfigError, match="one of its shards, is shorter than its header says"):
        load_model(shards[0], header_only=header_only)
    shards[2].unlink()
    with pytest.raises(ConfigError, match=r"missing beside it: s-00003-of-00004\.gguf; download all of them"):
        load_model(shards[0], header_only=header_only)


def test_file_in_a_folder_whose_name_is_not_utf_8_loads(tmp_path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    write_plain(folder / "m.gguf")
    load_model(folder / "m.gguf").close()


def test_header_read_alone_says_what_the_whole_file_says(model_path) -> None:
    header, whole = load_model(model_path, header_only=True), load_model(model_path)
    for name in ("trained_context", "kv_bytes_per_cell", "chat_template", "is_causal", "is_recurrent"):
        assert getattr(header, name) == getattr(whole, name)
    header.close()
    whole.close()


def test_a_file_of_something_else_is_a_configuration_error(tmp_path) -> None:
    (tmp_path / "notes.gguf").write_bytes(b"GGUF" + b"\x07" * 4096)
    with pytest.raises(ConfigError, match=r"notes\.gguf"):
        load_model(tmp_path / "notes.gguf")
    with pytest.raises(ConfigError, match=r"nothing\.gguf"):
        load_model(tmp_path / "nothing.gguf")


def test_more_context_than_the_model_was_trained_for_is_a_configuration_error(model_path, monkeypatch) -> None:
    closed = []
    close = Model.close
    monkeypatch.setattr(Model, "close", lambda self: (closed.append(self), close(self)))
    model = load_model(model_path)
    with pytest.raises(
        ConfigError, match=f"{model.trained_context + 1} is more than the {model.trained_context} tokens"
    ):
        core_on(model, model.trained_context + 1)
    assert closed == [model]


def test_a_step_larger_than_the_whole_context_is_cut_down_and_warm_up_leaves_nothing(model_path) -> None:
    model = load_model(model_path)
    core = core_on(model, 20, n_ubatch=512)
    core.check_integrity()
    loaded = Loaded(model, runner_of(core))
    assert (loaded.runner.max_rows, loaded.runner.cells_per_sequence) == (256, 20)
    core.add_request(loaded.request("Hello", 19))
    assert len(run(core)) > 1
    core.close()


def test_every_key_of_the_configuration_reaches_the_core(model_path) -> None:
    keys = {"n_ubatch": 96, "host_cache_mib": 3, "max_step_ms": 77, "speculation": True, "kv_cells": 256}
    core = core_on(load_model(model_path, n_gpu_layers=0), 64, n_parallel=2, **keys)
    runner, generation, embeddings = runner_of(core), core._core_of[AddRequest], core._core_of[EmbedRequest]
    assert (runner.max_rows, runner.max_running, runner.max_sequences) == (96, 2, 4)
    assert runner.max_outputs == 4 + MAX_SCORED_ROWS
    assert generation._kv_cache._prefix_cache._host_budget_bytes == 3 * 2**20
    assert generation._scheduler._max_step_ms == embeddings._max_step_ms == 77
    assert generation._scheduler._speculation is not None
    core.close()


def test_a_model_that_cannot_compute_is_found_out_at_warm_up(model_path, monkeypatch) -> None:
    closed = []
    close = LlamaRunner.close
    monkeypatch.setattr(LlamaRunner, "close", lambda self: (closed.append(self), close(self)))
    monkeypatch.setattr(LlamaRunner, "execute", lambda self, batch: -3)
    with pytest.raises(RuntimeError, match="llama_decode returned -3"):
        core_on(load_model(model_path), 64, n_parallel=2)
    assert len(closed) == 1


def test_keys_and_values_that_memory_cannot_hold_are_refused_before_they_are_made(model_path, monkeypatch) -> None:
    model = load_model(model_path, n_gpu_layers=0)
    monkeypatch.setattr(loading, "available_bytes", lambda: 1024 * model.kv_bytes_per_cell - 1)
    with pytest.raises(
        ConfigError,
        match=r"1024 cells take 0.0 GiB of keys and values.*lower n_parallel or max_context",
    ):
        core_on(model, 512, n_parallel=2)
    model = load_model(model_path, n_gpu_layers=0)
    with pytest.raises(ConfigError, match="lower kv_cells"):
        core_on(model, 512, n_parallel=4, kv_cells=1024)


def test_what_may_become_too_much_is_warned_of(model_path, monkeypatch, caplog) -> None:
    caplog.set_level("WARNING", "inferd.engine.llama.loading")
    monkeypatch.setattr(loading, "available_bytes", lambda: 2**20)
    model = load_model(model_path, n_gpu_layers=0)
    assert "is larger than the 0.0 GiB of memory that are free" in caplog.text
    monkeypatch.setattr(loading, "available_bytes", lambda: 64 * model.kv_bytes_per_cell)
    core_on(model, 64, host_cache_mib=1).close()
    assert "host_cache_mib and keys and values may come to" in caplog.text


def test_models_of_one_file_share_its_weights_and_nothing_else(model_path, tmp_path) -> None:
    (tmp_path / "link.gguf").symlink_to(model_path)
    first, second = load_model(model_path), load_model(tmp_path / "link.gguf")
    assert first.handle == second.handle
    assert load_model(model_path, n_gpu_layers=0).handle != first.handle
    (start,) = second.vocabulary.encode([Segment("<|im_start|>", special=True)], add_bos=False)
    first.vocabulary.show(["<|im_start|>"])
    assert second.vocabulary.is_control(start)
    first.close()
    core = core_on(second, 64)
    loaded = Loaded(second, runner_of(core))
    core.add_request(loaded.request("Hello", 4))
    assert len(run(core)) > 1
    core.close()


def test_the_file_tells_its_template_size_and_context(model_path) -> None:
    model = load_model(model_path)
    assert "<|im_start|>" in (model.chat_template or "")
    assert model.trained_context == 8192
    assert model.kv_bytes_per_cell == 2 * 30 * 3 * 64 * 2
    model.close()


def test_contexts_that_do_not_fit_side_by_side_share_one_pool(model_path, caplog) -> None:
    caplog.set_level("INFO", "inferd.engine.llama.loading")
    core = core_on(load_model(model_path), 1024, n_parallel=4, kv_cells=1200)
    assert isinstance(core._core_of[AddRequest]._kv_cache, UnifiedKVCache)
    runner = runner_of(core)
    assert (runner.num_pool_cells, runner.cells_per_sequence, runner.max_running, runner.max_sequences) == (
        1280,  # llama.cpp pads to 256
        1024,
        4,
        16,
    )
    assert "unified, 1200 cells, 4 sequences at a time, up to 1024 tokens each" in caplog.text
    core.check_integrity()
    core.close()


@pytest.mark.parametrize(("kind", "n_streams"), [("recurrent", 4), ("hybrid", 2)])
def test_a_model_that_keeps_states_is_partitioned(kind, n_streams, tmp_path) -> None:
    path = tmp_path / "tiny.gguf"
    WRITERS[kind](path)
    core = core_on(load_model(path), 512, n_parallel=4, kv_cells=1200)
    assert (runner_of(core).num_pool_cells, runner_of(core).max_sequences) == (None, n_streams)
    core.close()
    with pytest.raises(ConfigError, match=r'tiny\.gguf: kv_layout must not be "unified" for this model'):
        core_on(load_model(path), 512, n_parallel=4, kv_cells=1200, kv_layout=KVLayout.UNIFIED)
