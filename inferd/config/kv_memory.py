"""KV memory of a model, and how sequences share it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from inferd.errors import ConfigError

MAX_SEQUENCES = 256
"""LLAMA_MAX_SEQ in llama-cparams.h of llama.cpp."""
_IDS_PER_RUNNING = 4
"""Sequence ids per running sequence in unified memory; the others hold parked branches. An id costs a row of logits."""


class KVLayout(StrEnum):
    """Layout of KV memory; `plan_kv_memory` replaces AUTO by one of the others."""

    AUTO = "auto"
    PARTITIONED = "partitioned"
    UNIFIED = "unified"


@dataclass(frozen=True, slots=True)
class KVMemory:
    """KV memory that an engine allocates.

    Attributes:
        max_context: maximum tokens of a sequence.
        n_running_max: maximum number of running sequences.
        n_seq_max: maximum number of sequences that hold memory.
        n_cells: KV cells of all sequences together, one a token.
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
    """Return the KV memory for a layout. Raises ConfigError.

    AUTO is partitioned if `n_parallel` sequences of `max_context` cells fit into `kv_cells` (default: exactly these
    cells), because attention then runs over the cells of one sequence only; else it is unified. Cells beyond those of
    running sequences hold parked prefixes.
    """
    n_wanted = max_context * n_parallel
    n_cells = n_wanted if kv_cells is None else kv_cells
    if n_cells < max_context:
        raise ConfigError(f"must be at least max_context ({max_context}), the longest request, got {n_cells}")
    if layout is KVLayout.AUTO:
        layout = KVLayout.PARTITIONED if n_cells >= n_wanted else KVLayout.UNIFIED
    if layout is KVLayout.UNIFIED:
        n_seq_max = max(n_parallel, min(MAX_SEQUENCES, _IDS_PER_RUNNING * n_parallel, n_ubatch))
        return KVMemory(layout, max_context, n_parallel, n_seq_max, n_cells)
    if n_cells < n_wanted:
        raise ConfigError(
            f"must be at least n_parallel x max_context ({n_parallel} x {max_context} = {n_wanted}) for partitioned "
            f'memory, got {n_cells}; lower n_parallel or max_context, or write kv_layout = "unified"'
        )
    n_streams = min(n_cells // max_context, MAX_SEQUENCES, n_ubatch)
    return KVMemory(layout, max_context, n_parallel, n_streams, n_streams * max_context)


def plan_states(memory: KVMemory, *, has_cells: bool, layout: KVLayout, name: str) -> KVMemory:
    """Return the memory of a recurrent or hybrid model, whose memory must be partitioned. Raises ConfigError.

    Such a model keeps one indivisible state a sequence, so that sequences cannot share cells. It gets as many sequences
    as fit into the cells, or `n_running_max` if it has no cells.
    """
    if not memory.is_unified:
        return memory
    if layout is KVLayout.UNIFIED:
        raise ConfigError(
            f'{name}: kv_layout must not be "unified" for this model, because its sequences cannot share cells; remove '
            "kv_layout"
        )
    fitting = memory.n_cells // memory.max_context if has_cells else memory.n_running_max
    n_streams = min(memory.n_running_max, fitting)
    return KVMemory(KVLayout.PARTITIONED, memory.max_context, n_streams, n_streams, n_streams * memory.max_context)
