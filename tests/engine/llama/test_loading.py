from __future__ import annotations

import pytest

from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.llama.context import Context
from inferd.engine.llama.loading import build_core, load_model
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.errors import ConfigError
from tests.engine.llama.conftest import N_THREADS, Loaded, run

DEFAULTS = {"host_cache_bytes": 0, "max_step_ms": None, "compute_turn": ComputeTurn()}


@pytest.mark.parametrize("kept", [0, 3, 4, 100, 1_000_000])
def test_a_broken_file_is_a_configuration_error(model_path, tmp_path, kept) -> None:
    broken = tmp_path / "broken.gguf"
    with model_path.open("rb") as whole:
        broken.write_bytes(whole.read(kept))
    with pytest.raises(ConfigError, match=r"broken\.gguf: llama\.cpp cannot load this file"):
        load_model(broken)


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
    with pytest.raises(ConfigError, match=f"{model.n_ctx_train + 1} is more than the {model.n_ctx_train} tokens"):
        build_core(model, max_context=model.n_ctx_train + 1, n_parallel=1, n_ubatch=64, n_threads=N_THREADS, **DEFAULTS)
    assert closed == [model]


def test_a_step_larger_than_the_whole_context_is_cut_down_and_warm_up_leaves_nothing(model_path) -> None:
    model = load_model(model_path)
    core = build_core(model, max_context=20, n_parallel=1, n_ubatch=512, n_threads=N_THREADS, **DEFAULTS)
    core.check_integrity()
    loaded = Loaded(model, core._runner._context, core._runner)
    assert (core._runner.n_rows_max, core._runner.cells_per_sequence) == (256, 20)
    core.add_request(loaded.request("Hello", 19))
    assert len(run(core)) > 1
    core.close()


def test_a_model_that_cannot_compute_is_found_out_at_warm_up(model_path, monkeypatch) -> None:
    closed = []
    close = LlamaRunner.close
    monkeypatch.setattr(LlamaRunner, "close", lambda self: (closed.append(self), close(self)))
    monkeypatch.setattr(Context, "decode", lambda self, batch: -3)
    with pytest.raises(RuntimeError, match="llama_decode returned -3"):
        build_core(load_model(model_path), max_context=64, n_parallel=2, n_ubatch=64, n_threads=N_THREADS, **DEFAULTS)
    assert len(closed) == 1


def test_the_file_tells_its_template_size_and_context(model_path) -> None:
    model = load_model(model_path)
    assert "<|im_start|>" in (model.chat_template or "")
    assert model.n_ctx_train == 8192
    assert 0 < model.size_bytes <= model_path.stat().st_size
    assert model.kv_bytes_per_cell == 2 * 30 * 3 * 64 * 2
    model.close()
