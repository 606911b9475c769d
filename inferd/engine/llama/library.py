"""The native library, loaded once per process: its log, its short calls, and the weights in memory."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from inferd.config import shards_of
from inferd.errors import ConfigError

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
"""Calls of some microseconds that neither compute, allocate much nor log. ctypes.CDLL releases the GIL around each call
and then queues for it behind every other thread; ctypes.PyDLL keeps it. Beside one busy thread 16 sampler calls took
82 ms with CDLL and 1 ms with PyDLL. `llama_synchronize` (which releases the GIL) comes before the first of them in a
step: on a GPU they would wait for the step while holding the GIL."""

# enum ggml_log_level; its INFO is what other programs call debug.
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUED = 5

_Key = tuple[tuple[tuple[Path, int, int], ...], int]
"""Resolved path, size and time of change of each file, and the number of layers on GPUs."""

_LOAD_MODE_NONE = 0
"""llama.h, enum llama_load_mode: with no_alloc, the file's header is read and no weight."""

_CAUSES = (
    (
        r"data is not within the file bounds",
        "the file, or one of its shards, is shorter than its header says: was the download cut off? Download it again",
    ),
    (
        r"failed to read (magic|header|key-value pairs|tensor info)|failed to load model from",
        "its header is incomplete or damaged: was the download cut off? Download it again",
    ),
    (
        r"illegal split file idx",
        "it is a later shard of a split model: name the first one, which ends in -00001-of-NNNNN.gguf",
    ),
    (
        r"invalid split file name",
        "it is the first shard of a split model under another name: the others are found by its name, so keep the one "
        "it was published under, such as NAME-00001-of-00003.gguf",
    ),
    (
        r"CLIP cannot be used as main model",
        "it holds an encoder of images or audio (mmproj), not a language model: name the model's own file",
    ),
    (
        r"unknown model architecture: 'imatrix'|key not found in model: general\.architecture",
        "it holds no model but data about one (an importance matrix, say): name the model's own file",
    ),
    (
        r"unknown model architecture: '(?P<name>[^']*)'",
        "this version of llama.cpp does not know its architecture {name!r}",
    ),
    (
        r"key not found in model: \S+\.(context_length|block_count|embedding_length)",
        "its header lacks what a model's has: it is an adapter (LoRA) or a vocabulary, not a model by itself",
    ),
    (r"failed to allocate|unable to allocate|out of memory", "there is not enough memory for it"),
)
"""Messages that llama.cpp logs when it cannot load a file (llama-model-loader.cpp, gguf.cpp), and a sentence for each.
The first that matches is the cause."""


class _HeaderOnly(ctypes.Structure):
    """gguf.h, struct gguf_init_params: which data to read of a file."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class Library:
    """The loaded library.

    Attributes:
        api: llama_cpp's own binding, whose calls release the GIL.
        short: SHORT_CALLS, which keep the GIL.
        weights: the weights that the process has in memory.
    """

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

    def has_tensor(self, path: Path, name: str) -> bool:
        """Return whether a GGUF file that can be read, or one of its shards, has a tensor of that name; llama.cpp does
        not say. Reads the headers, some ms."""
        ggml: Any = self.api.llama_cpp._lib
        ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, _HeaderOnly]
        ggml.gguf_init_from_file.restype = ctypes.c_void_p
        ggml.gguf_find_tensor.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        ggml.gguf_find_tensor.restype = ctypes.c_int64
        ggml.gguf_free.argtypes, ggml.gguf_free.restype = [ctypes.c_void_p], None
        for shard in shards_of(path):
            header = ggml.gguf_init_from_file(os.fsencode(shard), _HeaderOnly(no_alloc=True))
            if not header:
                continue
            index = ggml.gguf_find_tensor(header, name.encode())
            ggml.gguf_free(header)
            if index >= 0:
                return True
        return False

    @property
    def version(self) -> str:
        """llama-cpp-python's version, which fixes llama.cpp's."""
        return str(self.api.__version__)


@functools.cache
def load_library() -> Library:
    """Return the library, loaded at the first call: a process has one copy of it."""
    import llama_cpp

    return Library(llama_cpp)


class _Log:
    """Receiver of llama.cpp's log, on any of its threads. Filters before it decodes: most messages are dropped."""

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
        """Collect errors in the list instead of logging them, for a caller that reports their cause. One at a time."""
        collected: list[str] = []
        self._collected = collected
        try:
            yield collected
        finally:
            self._collected = None


@dataclass(slots=True, eq=False)
class Weights:
    """One `llama_model`: immutable once loaded; any number of contexts is made from it, on any thread."""

    handle: Any
    key: _Key
    num_users: int = 1


class WeightsPool:
    """Reference-counted weights: models of one file share them. Any thread may use it; one loads at a time, because two
    would only slow each other down.

    Args:
        collect_errors: collects the errors that llama.cpp logs while the context is open.
    """

    def __init__(self, api: Any, collect_errors: Callable[[], AbstractContextManager[list[str]]]) -> None:
        self._api = api
        self._collect_errors = collect_errors
        self._lock = threading.Lock()
        self._loaded: dict[_Key, Weights] = {}

    def acquire(self, path: Path, *, n_gpu_layers: int, header_only: bool = False) -> Weights:
        """Return the weights of a file, to be released; they are shared by all that name the unchanged file and as many
        layers on GPUs. Raises ConfigError if llama.cpp cannot read the file.

        Args:
            header_only: read everything except the weights; no context can be made of it.
        """
        with self._lock:
            key = _key(path, n_gpu_layers)
            if header_only:
                return Weights(self._load(path, n_gpu_layers, header_only=True), key)
            weights = self._loaded.get(key)
            if weights is None:
                weights = self._loaded[key] = Weights(self._load(path, n_gpu_layers), key)
            else:
                weights.num_users += 1
            return weights

    def release(self, weights: Weights) -> None:
        """Release acquired weights, after their contexts were freed; the last release frees them."""
        with self._lock:
            assert weights.num_users > 0, "each acquisition is released once"
            weights.num_users -= 1
            if weights.num_users == 0:
                if self._loaded.get(weights.key) is weights:
                    del self._loaded[weights.key]
                self._api.llama_model_free(weights.handle)

    def _load(self, path: Path, n_gpu_layers: int, *, header_only: bool = False) -> Any:
        params = self._api.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers if n_gpu_layers >= 0 else 2**31 - 1
        if header_only:
            params.no_alloc, params.load_mode = True, _LOAD_MODE_NONE
        with self._collect_errors() as errors:
            handle = self._api.llama_model_load_from_file(os.fsencode(path), params)
        if not handle:
            raise ConfigError(f"{path}: {_cause(errors)}")
        return handle


def _cause(errors: Iterable[str]) -> str:
    """Return a sentence for the errors that llama.cpp logged."""
    text = "; ".join(errors)
    for pattern, sentence in _CAUSES:
        found = re.search(pattern, text)
        if found is not None:
            return sentence.format(**found.groupdict())
    return f"llama.cpp cannot load this file: {text or 'it gave no reason'}"


def _key(path: Path, n_gpu_layers: int) -> _Key:
    files = []
    for shard in shards_of(path):
        try:
            stat = shard.stat()
        except FileNotFoundError as error:
            raise ConfigError(f"{path}: {_missing_shards(path)}") from error
        except OSError as error:
            raise ConfigError(f"{shard}: {error.strerror}") from error
        files.append((shard.resolve(), stat.st_size, stat.st_mtime_ns))
    return tuple(files), n_gpu_layers


def _missing_shards(path: Path) -> str:
    """Return the sentence that names the files of `path` which are not there."""
    missing = [shard.name for shard in shards_of(path) if not shard.exists()]
    if missing == [path.name]:
        return "no such file"
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return f"shards of this split model are missing beside it: {shown}; download all of them"
