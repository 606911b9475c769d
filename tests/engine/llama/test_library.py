from __future__ import annotations

import ctypes
import logging

import pytest

from inferd.engine.llama.library import SHORT_CALLS, load_library


def test_every_short_call_exists_with_the_types_of_its_binding() -> None:
    library = load_library()
    native = library.api.llama_cpp._lib
    for name in SHORT_CALLS:
        short = getattr(library.short, name)
        assert short.argtypes == getattr(native, name).argtypes is not None
        assert short.restype is getattr(native, name).restype


def test_a_short_call_keeps_the_gil() -> None:
    assert isinstance(load_library().short, ctypes.PyDLL)


def test_the_library_is_loaded_once() -> None:
    assert load_library() is load_library()


@pytest.mark.parametrize(
    ("native", "level"),
    [(0, logging.DEBUG), (1, logging.DEBUG), (2, logging.DEBUG), (3, logging.WARNING), (4, logging.ERROR)],
)
def test_log_levels_of_ggml_become_ours_and_a_continuation_keeps_its_level(native, level, caplog) -> None:
    callback = load_library()._log.callback
    with caplog.at_level(logging.DEBUG, "inferd.llama"):
        callback(native, b"one\n", None)
        callback(5, b"two\n", None)
        callback(native, b"\n", None)
    assert [(record.levelno, record.message) for record in caplog.records] == [(level, "one"), (level, "two")]


def test_llama_cpp_logs_to_us_and_its_chatter_is_not_even_decoded(caplog, capfd) -> None:
    library = load_library()
    params = library.api.llama_model_default_params()
    with caplog.at_level(logging.WARNING, "inferd.llama"):
        assert not library.api.llama_model_load_from_file(b"/nowhere/model.gguf", params)
        library._log.callback(2, b"\xff chatter", None)
    assert caplog.records
    assert {record.levelno for record in caplog.records} <= {logging.WARNING, logging.ERROR}
    assert capfd.readouterr() == ("", "")
