"""LlamaRunner: the Runner over one llama.cpp context, with its batch, memory and logits."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from inferd.config import KVMemory
from inferd.engine.llama.model import Model
from inferd.engine.llama.samplers import AnySampler, SamplerChain, has_finite_maximum, new_sampler
from inferd.engine.runner import Batch, Logits, MemoryKind, Sampler, SequenceState
from inferd.errors import ConfigError
from inferd.sampling_params import SamplingParams

_CELL_PADDING = 256  # llama.cpp pads the context, and each sequence's part of it, to this


class LlamaRunner:
    """Runner that owns its context, not the model.

    Partitioned memory: each sequence has a stream of cells of its own, and attention runs over these only. Unified
    memory: all sequences take cells from one pool, and attention runs over all used cells. `swa_full` keeps
    sliding-window layers whole, so that llama.cpp drops no cell by itself.
    """

    def __init__(
        self, model: Model, memory: KVMemory, *, n_ubatch: int, n_threads: int, max_outputs: int | None = None
    ) -> None:
        """Make the context and find out the kind of its memory.

        Args:
            n_ubatch: maximum number of rows of a step.
            max_outputs: maximum number of rows with logits of a step, if it may have as many rows; None for one a
                sequence.

        Raises:
            ConfigError: llama.cpp cannot make the context (mostly: not enough memory).
        """
        self._model = model
        self._library = model.library
        self.handle = self._new_context(memory, n_ubatch=n_ubatch, n_threads=n_threads, max_outputs=max_outputs)
        api = self._library.api
        self.max_sequences: int = api.llama_n_seq_max(self.handle)
        self.max_running = memory.n_running_max
        self.num_pool_cells: int | None = api.llama_n_ctx(self.handle) if memory.is_unified else None
        self.max_rows: int = api.llama_n_ubatch(self.handle)
        self.max_outputs = min(memory.n_seq_max if max_outputs is None else max_outputs, self.max_rows)
        self.cells_per_sequence = memory.max_context
        self.vocab_size = model.vocabulary.n_vocab
        self.window_size = model.window_size
        assert self.max_sequences == memory.n_seq_max, "llama.cpp changed the number of sequences"
        assert api.llama_n_ctx_seq(self.handle) >= memory.max_context, "llama.cpp gave less context than asked for"
        self._memory: Any = api.llama_get_memory(self.handle)
        # A CPU has computed when llama_decode returns; taking the GIL twice would only mean waiting for it twice.
        self._is_asynchronous: bool = api.llama_supports_gpu_offload()
        self._copy_sources: set[int] = set()
        self._copy_targets: set[int] = set()
        self._rows: dict[int, Logits] = {}
        self._allocate_batch()
        self.memory_kind = self._memory_kind()

    def _new_context(self, memory: KVMemory, *, n_ubatch: int, n_threads: int, max_outputs: int | None) -> Any:
        model, api = self._model, self._library.api
        num_sequences = memory.n_seq_max
        assert 0 < num_sequences <= api.llama_max_parallel_sequences(), "llama.cpp's limit of sequences"
        assert n_ubatch >= num_sequences, "a step has room for one row of every sequence"
        assert not memory.is_unified or memory.max_context <= memory.n_cells, "the longest sequence fits into the pool"
        params = api.llama_context_default_params()
        params.n_seq_max = num_sequences
        params.n_ctx = _padded(memory.n_cells) if memory.is_unified else _padded(memory.max_context) * num_sequences
        params.n_batch = params.n_ubatch = min(n_ubatch, params.n_ctx)  # llama.cpp cuts it down to that
        num_outputs = num_sequences if max_outputs is None else max_outputs
        params.n_outputs_max = min(num_outputs, params.n_ubatch)  # 0 would mean a whole ubatch
        assert num_sequences <= params.n_outputs_max <= params.n_ubatch, "a row of every sequence may have logits"
        params.n_threads = params.n_threads_batch = n_threads
        params.kv_unified = memory.is_unified
        params.swa_full = True
        params.no_perf = True
        handle = api.llama_init_from_model(model.handle, params)
        if not handle:
            raise ConfigError(
                f"{model.path}: llama.cpp cannot make a context of {params.n_ctx} cells "
                f"({params.n_ctx * model.kv_bytes_per_cell / 2**30:.1f} GiB of keys and values); "
                f"lower {'kv_cells' if memory.is_unified else 'n_parallel or max_context'}"
            )
        return handle

    def _allocate_batch(self) -> None:
        """Make arrays for `max_rows` rows, which each step fills."""
        num_rows = self.max_rows
        self._tokens: Any = (ctypes.c_int32 * num_rows)()
        self._positions: Any = (ctypes.c_int32 * num_rows)()
        self._seq_ids: Any = (ctypes.c_int32 * num_rows)()
        self._one_id = (ctypes.c_int32 * num_rows)(*[1] * num_rows)
        self._wants_logits: Any = (ctypes.c_int8 * num_rows)()
        # Each row has a list of one sequence id: pointers into one block.
        first, size = ctypes.addressof(self._seq_ids), ctypes.sizeof(ctypes.c_int32)
        self._seq_id_lists = (ctypes.c_void_p * num_rows)(*range(first, first + num_rows * size, size))
        self._batch: Any = self._library.api.llama_batch(
            n_tokens=0,
            token=ctypes.cast(self._tokens, ctypes.POINTER(ctypes.c_int32)),
            pos=ctypes.cast(self._positions, ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=ctypes.cast(self._one_id, ctypes.POINTER(ctypes.c_int32)),
            seq_id=ctypes.cast(self._seq_id_lists, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=ctypes.cast(self._wants_logits, ctypes.POINTER(ctypes.c_int8)),
        )

    def _memory_kind(self) -> MemoryKind:
        """Find out what the memory allows: compute two tokens and cut off the second."""
        if self._model.is_recurrent:
            return MemoryKind.RECURRENT
        self.execute(_dummy_batch([2]))
        can_be_cut = self.seq_rm(0, 1) and self.seq_pos_max(0) == 0
        self.clear()
        if not can_be_cut:
            return MemoryKind.OPAQUE
        return MemoryKind.WINDOW if self.window_size else MemoryKind.PLAIN

    def execute(self, batch: Batch) -> int:
        """Compute the rows. Return llama_decode's code: 0 good; 1 no cells; 2 aborted; below 0 invalid or fatal. On any
        but 0 (and 1, -1, which change nothing) some of the rows may be in memory."""
        num_rows = batch.num_rows
        assert 0 < num_rows <= self.max_rows, "llama.cpp aborts the process on a larger batch"
        assert sum(batch.wants_logits) <= self.max_outputs, "llama.cpp aborts the process on more outputs"
        assert min(batch.seq_ids) >= 0, "sequence ids are in range"
        assert max(batch.seq_ids) < self.max_sequences, "sequence ids are in range"
        assert max(batch.positions) < self.cells_per_sequence, "a sequence stays within its cells"
        self._tokens[:num_rows] = batch.token_ids
        self._positions[:num_rows] = batch.positions
        self._seq_ids[:num_rows] = batch.seq_ids
        self._wants_logits[:num_rows] = batch.wants_logits
        self._batch.n_tokens = num_rows
        code: int = self._library.api.llama_decode(self.handle, self._batch)
        if code != -1:  # a batch that is refused does not get as far as the copies
            self._clear_copies()
        if self._is_asynchronous:
            self._library.api.llama_synchronize(self.handle)  # releases the GIL; the short calls after it do not
        return code

    def logits(self, row: int) -> Logits:
        """Return llama.cpp's own memory of a row's logits: samplers see what is written there. There are as many places
        as there may be rows with logits, and an array of each is made once."""
        assert self._wants_logits[row], "only a row with logits can be read: llama.cpp aborts on others"
        pointer = self._library.short.llama_get_logits_ith(self.handle, row)
        address = ctypes.addressof(pointer.contents)
        logits = self._rows.get(address)
        if logits is None:
            logits = self._rows[address] = np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))
        return logits

    def sample(self, sampler: Sampler, row: int) -> int | None:
        assert isinstance(sampler, AnySampler), "samplers come from new_sampler"
        logits = self.logits(row)
        if not isinstance(sampler, SamplerChain):
            return sampler.sample(logits)
        if not has_finite_maximum(logits):
            return None
        return int(self._library.short.llama_sampler_sample(sampler.handle, self.handle, row))

    def sample_from(self, sampler: Sampler, logits: Logits) -> int | None:
        assert isinstance(sampler, AnySampler), "samplers come from new_sampler"
        return sampler.sample(logits)

    def new_sampler(self, params: SamplingParams, prompt: tuple[int, ...] = ()) -> Sampler:
        history = self.cells_per_sequence
        return new_sampler(self._library, params, prompt, vocab_size=self.vocab_size, history=history)

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        assert 0 <= seq_id < self.max_sequences, "sequence ids are in range"
        return bool(self._library.short.llama_memory_seq_rm(self._memory, seq_id, start, end))

    def seq_pos_max(self, seq_id: int) -> int:
        assert 0 <= seq_id < self.max_sequences, "sequence ids are in range"
        return int(self._library.short.llama_memory_seq_pos_max(self._memory, seq_id))

    def seq_pos_min(self, seq_id: int) -> int:
        assert 0 <= seq_id < self.max_sequences, "sequence ids are in range"
        return int(self._library.short.llama_memory_seq_pos_min(self._memory, seq_id))

    def seq_cp(self, source: int, destination: int, length: int | None = None) -> None:
        """Partitioned: copy a whole stream; llama.cpp aborts the process on a range between streams. It copies
        positions at once, and cells at the next decode: see `is_readable`, `is_writable`. Unified: record the first
        `length` cells as the destination's too; nothing is copied."""
        assert 0 <= source < self.max_sequences, "sequence ids are in range"
        assert 0 <= destination < self.max_sequences, "sequence ids are in range"
        assert source != destination, "a sequence is copied to another one"
        assert (length is None) == (self.num_pool_cells is None), "a length is for unified memory, and needed there"
        if length is not None:
            self._library.api.llama_memory_seq_cp(self._memory, source, destination, 0, length)
            return
        assert self.seq_pos_max(destination) == -1, "the other stream is empty"
        self._library.api.llama_memory_seq_cp(self._memory, source, destination, -1, -1)
        self._copy_sources.add(source)
        self._copy_targets.add(destination)

    def is_readable(self, seq_id: int) -> bool:
        return seq_id not in self._copy_targets

    def is_writable(self, seq_id: int) -> bool:
        return seq_id not in self._copy_targets | self._copy_sources

    def seq_state_size(self, seq_id: int) -> int:
        return int(self._library.api.llama_state_seq_get_size(self.handle, seq_id))

    def seq_state(self, seq_id: int) -> SequenceState:
        """Return the stream's used cells, as llama.cpp writes them; of sliding-window layers, the last window."""
        assert self.is_readable(seq_id), "its cells are there"
        state = np.empty(self.seq_state_size(seq_id), dtype=np.uint8)
        data = _pointer(state, ctypes.c_uint8)
        written = self._library.api.llama_state_seq_get_data(self.handle, data, len(state), seq_id)
        assert written == len(state), "llama.cpp wrote less than it announced"
        return state

    def restore_seq(self, seq_id: int, state: SequenceState) -> bool:
        assert self.seq_pos_max(seq_id) == -1, "the stream is empty"
        if not self.is_writable(seq_id) and not self._carry_out_copies(seq_id):
            return False
        data = _pointer(state, ctypes.c_uint8)
        return bool(self._library.api.llama_state_seq_set_data(self.handle, data, len(state), seq_id))

    def _carry_out_copies(self, empty_id: int) -> bool:
        """Decode one row in an empty stream, which carries pending copies out, and empty the stream again."""
        self._tokens[0] = self._positions[0] = self._wants_logits[0] = 0
        self._seq_ids[0] = empty_id
        self._batch.n_tokens = 1
        code: int = self._library.api.llama_decode(self.handle, self._batch)
        self._library.api.llama_synchronize(self.handle)
        self.seq_rm(empty_id, 0)
        if code == 0:
            self._clear_copies()
        return code == 0

    def _clear_copies(self) -> None:
        self._copy_sources.clear()
        self._copy_targets.clear()

    def is_end_of_generation(self, token_id: int) -> bool:
        return token_id in self._model.vocabulary.end_of_generation

    def token_to_piece(self, token_id: int) -> bytes:
        return self._model.vocabulary.piece(token_id)

    def warm_up(self) -> None:
        """Compute a full step, one of one row, and one of a row for every sequence that may run. So graphs are built
        and memory is touched before the first request, and a model that cannot compute is found out now. Raises
        RuntimeError."""
        num_rows = min(self.max_rows, self.cells_per_sequence)
        for shape in ([num_rows], [1], [1] * self.max_running):
            code = self.execute(_dummy_batch(shape))
            self.clear()
            if code != 0:
                raise RuntimeError(f"llama_decode returned {code} while {self._model.path.name} was warmed up")

    def clear(self) -> None:
        """Empty every stream."""
        self._library.api.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        self._library.api.llama_free(self.handle)


def _dummy_batch(rows_per_sequence: list[int]) -> Batch:
    """Return a batch of token 0, with logits on each sequence's last row."""
    batch = Batch([], [], [], [])
    for seq_id, num_rows in enumerate(rows_per_sequence):
        batch.token_ids.extend([0] * num_rows)
        batch.positions.extend(range(num_rows))
        batch.seq_ids.extend([seq_id] * num_rows)
        batch.wants_logits.extend([False] * (num_rows - 1) + [True])
    return batch


def _pointer(array: npt.NDArray[Any], c_type: Any) -> Any:
    """Return a typed pointer to the array's memory; the array must outlive it."""
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(c_type))


def _padded(num_cells: int) -> int:
    return -(-num_cells // _CELL_PADDING) * _CELL_PADDING
