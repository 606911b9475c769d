"""Weights in memory: once, however many models of one file are served."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.errors import ConfigError

_Key = tuple[Path, int, int, int]


@dataclass(slots=True, eq=False)
class Weights:
    """One `llama_model`. It never changes once it is loaded; contexts of any number are made from it, on any thread."""

    handle: Any
    key: _Key
    num_users: int = 1


class WeightsPool:
    """Counts who uses which weights, and frees those that nobody does. Any thread may use it; while one loads, others
    that want to wait: two that load at once would only slow each other down."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._loaded: dict[_Key, Weights] = {}

    def acquire(self, path: Path, *, n_gpu_layers: int) -> Weights:
        """To be released. The same for all who name one unchanged file, and as many layers on GPUs. Raises ConfigError
        if llama.cpp cannot read the file."""
        with self._lock:
            key = _key(path, n_gpu_layers)
            weights = self._loaded.get(key)
            if weights is None:
                weights = self._loaded[key] = Weights(self._load(path, n_gpu_layers), key)
            else:
                weights.num_users += 1
            return weights

    def release(self, weights: Weights) -> None:
        """Once by each who acquired it, after its contexts were freed."""
        with self._lock:
            assert weights.num_users > 0, "it is released once by each"
            weights.num_users -= 1
            if weights.num_users == 0:
                del self._loaded[weights.key]
                self._api.llama_model_free(weights.handle)

    def _load(self, path: Path, n_gpu_layers: int) -> Any:
        params = self._api.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers if n_gpu_layers >= 0 else 2**31 - 1
        handle = self._api.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise ConfigError(
                f"{path}: llama.cpp cannot load this file; is it a complete GGUF of a known architecture, and is there "
                "memory for it?"
            )
        return handle


def _key(path: Path, n_gpu_layers: int) -> _Key:
    try:
        path = path.resolve()
        stat = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return path, stat.st_size, stat.st_mtime_ns, n_gpu_layers
