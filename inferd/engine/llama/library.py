"""The native library: loaded once per process, with its log under our control and short calls kept cheap."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from inferd.engine.llama.weights import WeightsPool

logger = logging.getLogger("inferd.llama")

SHORT_CALLS = (
    "llama_get_logits_ith",
    "llama_memory_seq_pos_max",
    "llama_memory_seq_pos_min",
    "llama_memory_seq_rm",
    "llama_sampler_accept",
    "llama_sampler_apply",
    "llama_sampler_free",
    "llama_sampler_sample",
    "llama_token_to_piece",
    "llama_vocab_get_attr",
    "llama_vocab_is_eog",
)
"""Calls of some microseconds that neither compute, allocate much nor log. ctypes.CDLL gives the GIL up around each
call and then queues for it behind every other thread; ctypes.PyDLL keeps it. Beside one busy thread 16 sampler calls
took 82 ms through the one and 1 ms through the other. `llama_synchronize` (which does let go) comes before the first
of them in a step: on a GPU they would wait for the step with the GIL in hand."""

# enum ggml_log_level; its INFO is what other programs call debug.
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUED = 5


class _Log:
    """Receives llama.cpp's log, from any of its threads. Filters first: most of it is chatter."""

    def __init__(self, callback_type: Any) -> None:
        self._level = logging.DEBUG
        self._collected: list[str] | None = None
        self.callback = callback_type(self._on_message)  # must live as long as the library

    def _on_message(self, level: int, text: bytes, _user_data: object) -> None:
        if level != _CONTINUED:
            self._level = _LEVELS.get(level, logging.DEBUG)
        if self._collected is not None and self._level == logging.ERROR:
            self._collected.append(text.decode("utf-8", "replace").strip())
        elif logger.isEnabledFor(self._level) and (message := text.decode("utf-8", "replace").strip()):
            logger.log(self._level, "%s", message)

    @contextmanager
    def errors(self) -> Iterator[list[str]]:
        """Collect errors in the list instead of logging them: for a caller that says what they mean. One at a time."""
        collected: list[str] = []
        self._collected = collected
        try:
            yield collected
        finally:
            self._collected = None


class Library:
    """`api` is llama_cpp's own binding (GIL released); `short` has SHORT_CALLS with the GIL kept; `weights` are those
    that the process has in memory."""

    def __init__(self, api: ModuleType) -> None:
        self.api: Any = api
        native: Any = api.llama_cpp._lib
        self.short: Any = ctypes.PyDLL(native._name, handle=native._handle)
        for name in SHORT_CALLS:
            bound, function = getattr(native, name), getattr(self.short, name)
            function.argtypes, function.restype = bound.argtypes, bound.restype
        self._log = _Log(api.llama_log_callback)
        api.llama_log_set(self._log.callback, ctypes.c_void_p(0))
        api.llama_backend_init()
        self.weights = WeightsPool(api, self._log.errors)

    @property
    def version(self) -> str:
        """llama-cpp-python's version, which fixes llama.cpp's."""
        return str(self.api.__version__)


@functools.cache
def load_library() -> Library:
    """Loads llama.cpp on the first call. The process has one copy of it, so this is its one owner."""
    import llama_cpp

    return Library(llama_cpp)
