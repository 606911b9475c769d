"""How much KV memory a model gets, and how its sequences divide it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from inferd.errors import ConfigError

SEQUENCES_MAX = 256
"""LLAMA_MAX_SEQ of llama.cpp's llama-cparams.h."""
_IDS_PER_RUNNING = 4
"""Unified memory: ids for each sequence that runs; the others hold parked branches. An id costs a row of logits."""


class KVLayout(StrEnum):
    """What models.toml asks for; AUTO is one of the other two, by `plan_kv_memory`."""

    AUTO = "auto"
    PARTITIONED = "partitioned"
    UNIFIED = "unified"


@dataclass(frozen=True, slots=True)
class KVMemory:
    """What the engine makes.

    Attributes:
        max_context: most tokens of one sequence.
        n_running_max: sequences computed on at the same time.
        n_seq_max: sequences that can hold memory at the same time.
        n_cells: tokens whose keys and values fit, all together.
    """

    layout: KVLayout
    max_context: int
    n_running_max: int
    n_seq_max: int
    n_cells: int

    @property
    def is_unified(self) -> bool:
        return self.layout is KVLayout.UNIFIED

    def __str__(self) -> str:
        shape = f"{self.n_running_max} sequences at a time, up to {self.max_context} tokens each"
        return f"{self.layout}, {self.n_cells} cells, {shape}"


def plan_kv_memory(
    layout: KVLayout, *, max_context: int, n_parallel: int, kv_cells: int | None, n_ubatch: int
) -> KVMemory:
    """Partitioned memory wherever `n_parallel` streams of `max_context` cells are within `kv_cells` (which is as many
    unless it is given): attention then runs over a sequence's own cells only. Unified where they are not, or where it
    is asked for. Cells beyond those of the running sequences hold parked prefixes. Raises ConfigError."""
    n_wanted = max_context * n_parallel
    n_cells = n_wanted if kv_cells is None else kv_cells
    if n_cells < max_context:
        raise ConfigError(f"must be at least max_context ({max_context}), got {n_cells}: the longest request must fit")
    if layout is KVLayout.AUTO:
        layout = KVLayout.PARTITIONED if n_cells >= n_wanted else KVLayout.UNIFIED
    if layout is KVLayout.UNIFIED:
        n_seq_max = max(n_parallel, min(SEQUENCES_MAX, _IDS_PER_RUNNING * n_parallel, n_ubatch))
        return KVMemory(layout, max_context, n_parallel, n_seq_max, n_cells)
    if n_cells < n_wanted:
        raise ConfigError(
            f"{n_cells} cells are too few for partitioned memory, which gives each of n_parallel ({n_parallel}) "
            f'sequences max_context ({max_context}) cells, {n_wanted} in all; lower either, or kv_layout = "unified"'
        )
    n_streams = min(n_cells // max_context, SEQUENCES_MAX, n_ubatch)
    return KVMemory(layout, max_context, n_parallel, n_streams, n_streams * max_context)


def plan_states(memory: KVMemory, *, has_cells: bool, layout: KVLayout, name: str) -> KVMemory:
    """The same for a recurrent or hybrid model: it keeps a state a sequence, whole, which nothing is shared of, so its
    memory is partitioned; as many streams as the cells suffice for, all where it has no cells. Raises ConfigError."""
    if not memory.is_unified:
        return memory
    if layout is KVLayout.UNIFIED:
        raise ConfigError(
            f'{name}: kv_layout = "unified" is not for this model, which keeps a state for each sequence and cannot '
            "share a part of it; leave kv_layout out"
        )
    fitting = memory.n_cells // memory.max_context if has_cells else memory.n_running_max
    n_streams = min(memory.n_running_max, fitting)
    return KVMemory(KVLayout.PARTITIONED, memory.max_context, n_streams, n_streams, n_streams * memory.max_context)
