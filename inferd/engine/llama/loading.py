"""Loading: from a GGUF file to a ModelCore that is warm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferd.config import KVMemory, ModelConfig, plan_states, shards_of
from inferd.engine.batch import MAX_SCORED_ROWS
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.core import EngineCore
from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.embeddings.pooling import Pooling
from inferd.engine.llama.embedder import LlamaEmbedder
from inferd.engine.llama.library import load_library
from inferd.engine.llama.machine import available_bytes, available_cores
from inferd.engine.llama.model import Model
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.engine.model_core import Core, ModelCore
from inferd.errors import ConfigError

MAX_STEP_MS_CPU = 400.0
MAX_STEP_MS_GPU = 50.0
"""Maximum time that a prefill delays decodes. On a CPU, less would leave it chunks too small to be fast."""

_GIB = 2**30
_MIB = 2**20

logger = logging.getLogger(__name__)


def load_model(path: Path, *, n_gpu_layers: int = -1, header_only: bool = False, pooling: str | None = None) -> Model:
    """Load weights and vocabulary (seconds), or all except the weights (tenths of a second). Raises ConfigError.

    Args:
        pooling: value of a Pooling that replaces the file's; None: the file's.
    """
    library, free_bytes = load_library(), available_bytes()
    to_gpu = n_gpu_layers != 0 and library.api.llama_supports_gpu_offload()
    size_bytes = sum(shard.stat().st_size for shard in shards_of(path) if shard.is_file())
    if free_bytes is not None and not to_gpu and size_bytes > free_bytes:
        logger.warning(
            "%s is larger than the %.1f GiB of memory that are free: it will be slow", path.name, free_bytes / _GIB
        )
    return Model(
        library,
        path,
        n_gpu_layers=n_gpu_layers,
        header_only=header_only,
        pooling=None if pooling is None else Pooling(pooling),
    )


def build_core(model: Model, config: ModelConfig, compute_turn: ComputeTurn) -> ModelCore:
    """Return a warm core that owns `model`; called on the thread that will step. Raises ConfigError or RuntimeError;
    the model is then closed."""
    try:
        cores = _cores(model, config, compute_turn)
    except (ConfigError, RuntimeError):
        model.close()
        raise
    return ModelCore(cores, release=model.close)


def fitting_memory(model: Model, config: ModelConfig) -> KVMemory:
    """Return the KV memory of `model` by its configuration. Needs no weights. Raises ConfigError if the model's context
    is shorter than configured, or if keys and values do not fit into free memory."""
    memory = config.kv_memory
    _check_context(model, memory.max_context)
    if not model.makes_text:
        return memory
    if model.is_recurrent:
        return plan_states(memory, has_cells=model.has_cells, layout=config.kv_layout, name=model.path.name)
    _check_memory(model, memory, config.host_cache_mib * _MIB, available_bytes())
    return memory


def embedding_limit(model: Model, config: ModelConfig) -> int:
    """Return the maximum tokens of an embedding input; one that has to come whole has to fit into a step."""
    return config.max_context if model.is_causal else min(config.max_context, config.n_ubatch)


def _cores(
    model: Model, config: ModelConfig, compute_turn: ComputeTurn
) -> dict[type[AddRequest | EmbedRequest], Core[Any]]:
    memory = fitting_memory(model, config)
    n_threads = config.n_threads or available_cores()
    max_step_ms: float | None = config.max_step_ms
    if max_step_ms is None:
        max_step_ms = MAX_STEP_MS_GPU if model.is_offloaded else MAX_STEP_MS_CPU

    def make_embedder() -> LlamaEmbedder:
        max_tokens = embedding_limit(model, config)
        return LlamaEmbedder(model, max_tokens=max_tokens, n_ubatch=config.n_ubatch, n_threads=n_threads)

    def embeddings(is_alone: Callable[[], bool]) -> EmbeddingCore:
        return EmbeddingCore(make_embedder, max_step_ms=max_step_ms, compute_turn=compute_turn, is_alone=is_alone)

    if not model.makes_text:
        core = embeddings(lambda: True)
        core.load()  # now, to find out whether its context can be made
        logger.info("%s is ready; it makes %s", model.path.name, "embeddings only" if model.head is None else "scores")
        return {EmbedRequest: core}
    generation = EngineCore(
        _warm_runner(model, memory, config, n_threads),
        host_cache_bytes=config.host_cache_mib * _MIB,
        max_step_ms=max_step_ms,
        compute_turn=compute_turn,
        speculates=config.speculation,
    )
    return {AddRequest: generation, EmbedRequest: embeddings(lambda: not generation.has_work)}


def _warm_runner(model: Model, memory: KVMemory, config: ModelConfig, n_threads: int) -> LlamaRunner:
    max_outputs = memory.n_seq_max + MAX_SCORED_ROWS  # at least a draft and the token before it, too
    runner = LlamaRunner(model, memory, n_ubatch=config.n_ubatch, n_threads=n_threads, max_outputs=max_outputs)
    try:
        runner.warm_up()
    except RuntimeError:
        runner.close()
        raise
    logger.info("%s is warm. KV memory: %s", model.path.name, memory)
    return runner


def _check_memory(model: Model, memory: KVMemory, host_cache_bytes: int, free_bytes: int | None) -> None:
    """Refuse keys and values that do not fit into RAM, if they go there: the kernel would end the process once they are
    written, and llama.cpp writes them at once. A device without room reports it by itself; the size of a recurrent
    state is not known before."""
    if free_bytes is None or model.is_offloaded:
        return
    kv_bytes = memory.n_cells * model.kv_bytes_per_cell
    if kv_bytes > free_bytes:
        raise ConfigError(
            f"{model.path.name}: {memory.n_cells} cells take {kv_bytes / _GIB:.1f} GiB of keys and values, and "
            f"{free_bytes / _GIB:.1f} GiB of memory are free; " + _remedy(memory, free_bytes // model.kv_bytes_per_cell)
        )
    if kv_bytes + host_cache_bytes > free_bytes:
        logger.warning(
            "%s: host_cache_mib and keys and values may come to %.1f GiB, and %.1f GiB of memory are free",
            model.path.name,
            (kv_bytes + host_cache_bytes) / _GIB,
            free_bytes / _GIB,
        )


def _remedy(memory: KVMemory, num_cells: int) -> str:
    """Return what to change in `memory` if there is room for `num_cells` cells."""
    if memory.is_unified:
        return f"lower kv_cells: {num_cells} would fit"
    n_parallel = num_cells // memory.max_context
    return f"lower n_parallel or max_context: n_parallel x max_context = {num_cells} would fit" + (
        f", so n_parallel = {n_parallel}" if n_parallel else ""
    )


def _check_context(model: Model, max_context: int) -> None:
    if max_context > model.trained_context:
        raise ConfigError(
            f"{model.path.name}: max_context = {max_context} is more than the {model.trained_context} tokens "
            "that this model was trained for"
        )
