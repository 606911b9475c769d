"""From a GGUF file to an engine core that is warm."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from inferd.config import KVLayout, KVMemory, plan_states, shards_of
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.core import EngineCore
from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.llama.context import Context
from inferd.engine.llama.embedder import LlamaEmbedder
from inferd.engine.llama.library import load_library
from inferd.engine.llama.machine import available_bytes, available_cores
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.model_core import ModelCore
from inferd.engine.speculation import MAX_DRAFT
from inferd.errors import ConfigError

MAX_STEP_MS_CPU = 400.0
MAX_STEP_MS_GPU = 50.0
"""How long a prompt may hold up those who decode. On a CPU, less would leave it chunks too small to be fast."""

_GIB = 2**30

logger = logging.getLogger(__name__)


def load_model(path: Path, *, n_gpu_layers: int = -1, header_only: bool = False) -> Model:
    """Loads weights and vocabulary (seconds), or all but the weights (tenths of a second). Raises ConfigError."""
    library, free_bytes = load_library(), available_bytes()
    to_gpu = n_gpu_layers != 0 and library.api.llama_supports_gpu_offload()
    size_bytes = sum(shard.stat().st_size for shard in shards_of(path) if shard.is_file())
    if free_bytes is not None and not to_gpu and size_bytes > free_bytes:
        logger.warning(
            "%s is larger than the %.1f GiB of memory that are free: it will be slow", path.name, free_bytes / _GIB
        )
    return Model(library, path, n_gpu_layers=n_gpu_layers, header_only=header_only)


def build_core(
    model: Model,
    *,
    memory: KVMemory,
    kv_layout: KVLayout,
    n_ubatch: int,
    n_threads: int | None,
    host_cache_bytes: int,
    max_step_ms: float | None,
    speculates: bool,
    compute_turn: ComputeTurn,
) -> ModelCore:
    """Makes a context on `model` (the core owns both from here) and warms it up. Call it on the thread that will
    step. `memory` is what `kv_layout` came to for models that keep cells. Raises ConfigError; the model is then closed.
    """
    if max_step_ms is None:
        max_step_ms = MAX_STEP_MS_GPU if model.is_offloaded else MAX_STEP_MS_CPU
    make_embedder = partial(
        LlamaEmbedder,
        model,
        max_tokens=embedding_limit(model, max_context=memory.max_context, n_ubatch=n_ubatch),
        n_ubatch=n_ubatch,
        n_threads=n_threads or available_cores(),
    )
    embeddings = EmbeddingCore(make_embedder, max_step_ms=max_step_ms, compute_turn=compute_turn)
    if not model.is_causal:
        return _only_embeddings(model, embeddings, memory.max_context)
    try:
        memory = fitting_memory(model, memory=memory, kv_layout=kv_layout, host_cache_bytes=host_cache_bytes)
        context = Context(
            model,
            n_seq_max=memory.n_seq_max,
            n_ctx_seq=memory.max_context,
            n_pool_cells=memory.n_cells if memory.is_unified else None,
            n_ubatch=n_ubatch,
            n_threads=n_threads or available_cores(),
            n_outputs_max=max(memory.n_seq_max, 1 + MAX_DRAFT) if speculates else None,
        )
    except ConfigError:
        model.close()
        raise
    runner = LlamaRunner(model, context, max_context=memory.max_context, n_running_max=memory.n_running_max)
    try:
        runner.warm_up()
    except RuntimeError:
        runner.close()
        raise
    logger.info("%s is warm. KV memory: %s", model.path.name, memory)
    generation = EngineCore(
        runner,
        host_cache_bytes=host_cache_bytes,
        max_step_ms=max_step_ms,
        compute_turn=compute_turn,
        speculates=speculates,
    )
    return ModelCore(generation, embeddings)


def fitting_memory(model: Model, *, memory: KVMemory, kv_layout: KVLayout, host_cache_bytes: int) -> KVMemory:
    """Return the KV memory that `model` gets when `memory` is asked for. Needs no weights. Raises ConfigError if its
    context is shorter, or if its keys and values do not fit into the memory that is free."""
    _check_context(model, memory.max_context)
    if not model.is_causal:
        return memory
    if model.is_recurrent:
        return plan_states(memory, has_cells=model.has_cells, layout=kv_layout, name=model.path.name)
    _check_memory(model, memory, host_cache_bytes, available_bytes())
    return memory


def embedding_limit(model: Model, *, max_context: int, n_ubatch: int) -> int:
    """Most tokens of an input; one that has to come whole has to fit into a step."""
    return max_context if model.is_causal else min(max_context, n_ubatch)


def _only_embeddings(model: Model, embeddings: EmbeddingCore, max_context: int) -> ModelCore:
    """Of a model that makes no text: its context is made now, so that one that cannot be is found out."""
    try:
        _check_context(model, max_context)
        embeddings.load()
    except ConfigError:
        model.close()
        raise
    logger.info("%s is ready; it makes embeddings only", model.path.name)
    return ModelCore(None, embeddings, release=model.close)


def _check_memory(model: Model, memory: KVMemory, host_cache_bytes: int, free_bytes: int | None) -> None:
    """Where keys and values go to RAM: the kernel would end the process once they are written, and llama.cpp writes
    them at once. (A device that has no room for them says so.) What a state of recurrent memory takes is not known
    before."""
    if free_bytes is None or model.is_offloaded:
        return
    kv_bytes = memory.n_cells * model.kv_bytes_per_cell
    if kv_bytes > free_bytes:
        raise ConfigError(
            f"{model.path.name}: {memory.n_cells} cells take {kv_bytes / _GIB:.1f} GiB of keys and values, and "
            f"{free_bytes / _GIB:.1f} GiB of memory are free; "
            + _what_fits(memory, free_bytes // model.kv_bytes_per_cell)
        )
    if kv_bytes + host_cache_bytes > free_bytes:
        logger.warning(
            "%s: host_cache_mib and keys and values may come to %.1f GiB, and %.1f GiB of memory are free",
            model.path.name,
            (kv_bytes + host_cache_bytes) / _GIB,
            free_bytes / _GIB,
        )


def _what_fits(memory: KVMemory, n_cells: int) -> str:
    """Return what to change in `memory` if there is room for `n_cells` cells."""
    if memory.is_unified:
        return f"lower kv_cells: {n_cells} would fit"
    n_parallel = n_cells // memory.max_context
    return f"lower n_parallel or max_context: n_parallel x max_context = {n_cells} would fit" + (
        f", so n_parallel = {n_parallel}" if n_parallel else ""
    )


def _check_context(model: Model, max_context: int) -> None:
    if max_context > model.n_ctx_train:
        raise ConfigError(
            f"{model.path.name}: max_context = {max_context} is more than the {model.n_ctx_train} tokens "
            "that this model was trained for"
        )
