"""One llama.cpp context: its batch, its memory, its logits. Used by one thread."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from inferd.engine.llama.model import Model
from inferd.engine.runner import Batch, Logits, SequenceState
from inferd.errors import ConfigError

_CELL_PADDING = 256  # llama.cpp pads the context, and each sequence's part of it, to this


class Context:
    """Memory for `n_seq_max` sequences. Partitioned: each has a stream of `n_ctx_seq` cells, and attention runs over
    its own cells only. Unified: all take cells from one pool of `n_pool_cells`, and attention runs over all that are
    used. `swa_full` keeps sliding-window layers whole, so that nothing vanishes under us."""

    def __init__(
        self,
        model: Model,
        *,
        n_seq_max: int,
        n_ctx_seq: int,
        n_ubatch: int,
        n_threads: int,
        n_pool_cells: int | None = None,
        n_outputs_max: int | None = None,
    ) -> None:
        """`n_outputs_max`: most rows with logits in a step; one for every sequence unless it is given.

        Raises ConfigError if llama.cpp cannot make the context (mostly: not enough memory)."""
        self._library = model.library
        api = self._library.api
        assert 0 < n_seq_max <= api.llama_max_parallel_sequences(), "llama.cpp's ceiling on sequences"
        assert n_ubatch >= n_seq_max, "a step has room for one row of every sequence"
        params = api.llama_context_default_params()
        params.n_seq_max = n_seq_max
        assert n_pool_cells is None or n_ctx_seq <= n_pool_cells, "the longest sequence fits into the pool"
        params.n_ctx = _pad(n_ctx_seq) * n_seq_max if n_pool_cells is None else _pad(n_pool_cells)
        n_ubatch = min(n_ubatch, params.n_ctx)  # llama.cpp cuts it down to that
        params.n_batch = params.n_ubatch = n_ubatch
        self.n_outputs_max = n_seq_max if n_outputs_max is None else n_outputs_max
        assert n_seq_max <= self.n_outputs_max <= n_ubatch, "a row of every sequence may have logits"
        params.n_outputs_max = self.n_outputs_max  # 0 would reserve logits for a whole ubatch
        params.n_threads = params.n_threads_batch = n_threads
        params.kv_unified = n_pool_cells is not None
        params.swa_full = True
        params.no_perf = True
        self.handle: Any = api.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise ConfigError(
                f"{model.path}: llama.cpp cannot make a context of {params.n_ctx} cells "
                f"({params.n_ctx * model.kv_bytes_per_cell / 2**30:.1f} GiB of keys and values); "
                f"lower {'n_parallel or max_context' if n_pool_cells is None else 'kv_cells'}"
            )
        self.n_seq_max: int = api.llama_n_seq_max(self.handle)
        self.n_ctx_seq: int = api.llama_n_ctx_seq(self.handle)
        self.n_ubatch: int = api.llama_n_ubatch(self.handle)
        self._n_vocab = model.vocabulary.n_vocab
        assert (self.n_seq_max, self.n_ubatch) == (n_seq_max, n_ubatch), "llama.cpp changed the sizes"
        assert self.n_ctx_seq >= n_ctx_seq, "llama.cpp gave less context than asked for"
        self.n_pool_cells: int | None = None if n_pool_cells is None else api.llama_n_ctx(self.handle)
        self._memory: Any = api.llama_get_memory(self.handle)
        # A CPU has computed when llama_decode returns; taking the GIL twice would only mean waiting for it twice.
        self._is_asynchronous: bool = api.llama_supports_gpu_offload()
        self._copy_sources: set[int] = set()
        self._copy_targets: set[int] = set()
        self._rows: dict[int, Logits] = {}
        self._tokens: Any = (ctypes.c_int32 * n_ubatch)()
        self._positions: Any = (ctypes.c_int32 * n_ubatch)()
        self._seq_ids: Any = (ctypes.c_int32 * n_ubatch)()
        self._one_id = (ctypes.c_int32 * n_ubatch)(*[1] * n_ubatch)
        self._logits: Any = (ctypes.c_int8 * n_ubatch)()
        # Each row has a list of one sequence id: pointers into one block.
        first, size = ctypes.addressof(self._seq_ids), ctypes.sizeof(ctypes.c_int32)
        self._seq_id_lists = (ctypes.c_void_p * n_ubatch)(*range(first, first + n_ubatch * size, size))
        self._batch: Any = api.llama_batch(
            n_tokens=0,
            token=ctypes.cast(self._tokens, ctypes.POINTER(ctypes.c_int32)),
            pos=ctypes.cast(self._positions, ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=ctypes.cast(self._one_id, ctypes.POINTER(ctypes.c_int32)),
            seq_id=ctypes.cast(self._seq_id_lists, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=ctypes.cast(self._logits, ctypes.POINTER(ctypes.c_int8)),
        )

    def decode(self, batch: Batch) -> int:
        """llama_decode's code: 0 good; 1 no room; 2 aborted; below 0 invalid or fatal. On any but 0 (and 1, -1,
        which change nothing) a part of the rows may be in memory."""
        n_rows = batch.n_rows
        assert 0 < n_rows <= self.n_ubatch, "llama.cpp aborts the process on a larger batch"
        assert sum(batch.wants_logits) <= self.n_outputs_max, "llama.cpp aborts the process on more outputs"
        assert min(batch.seq_ids) >= 0, "sequence ids are in range"
        assert max(batch.seq_ids) < self.n_seq_max, "sequence ids are in range"
        assert max(batch.positions) < self.n_ctx_seq, "a sequence stays within its cells"
        self._tokens[:n_rows] = batch.token_ids
        self._positions[:n_rows] = batch.positions
        self._seq_ids[:n_rows] = batch.seq_ids
        self._logits[:n_rows] = batch.wants_logits
        self._batch.n_tokens = n_rows
        code: int = self._library.api.llama_decode(self.handle, self._batch)
        if code != -1:  # a batch that is refused does not get as far as the copies
            self._copies_are_done()
        if self._is_asynchronous:
            self._library.api.llama_synchronize(self.handle)  # lets the GIL go; the short calls after it don't
        return code

    def logits(self, row: int) -> Logits:
        """llama.cpp's own memory of a row's logits, shape (n_vocab,): samplers see what is written there. There are as
        many places as there may be rows with logits, and an array of each is made once."""
        assert self._logits[row], "only a row with logits can be read: llama.cpp aborts on others"
        pointer = self._library.short.llama_get_logits_ith(self.handle, row)
        address = ctypes.addressof(pointer.contents)
        logits = self._rows.get(address)
        if logits is None:
            logits = self._rows[address] = np.ctypeslib.as_array(pointer, shape=(self._n_vocab,))
        return logits

    def sample(self, sampler_handle: Any, row: int) -> int:
        """Draws from a row with logits of the last decode, and records the token in the chain."""
        assert self._logits[row], "only a row with logits can be sampled: llama.cpp aborts on others"
        return int(self._library.short.llama_sampler_sample(sampler_handle, self.handle, row))

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        assert 0 <= seq_id < self.n_seq_max, "sequence ids are in range"
        return bool(self._library.short.llama_memory_seq_rm(self._memory, seq_id, start, end))

    def seq_pos_max(self, seq_id: int) -> int:
        assert 0 <= seq_id < self.n_seq_max, "sequence ids are in range"
        return int(self._library.short.llama_memory_seq_pos_max(self._memory, seq_id))

    def seq_pos_min(self, seq_id: int) -> int:
        assert 0 <= seq_id < self.n_seq_max, "sequence ids are in range"
        return int(self._library.short.llama_memory_seq_pos_min(self._memory, seq_id))

    def seq_cp(self, source: int, destination: int, length: int | None = None) -> None:
        """Partitioned: copies a whole stream; llama.cpp aborts the process on a range between streams. It copies
        positions at once and cells when it decodes next: who reads or writes cells in between asks `is_readable`,
        `is_writable`. Unified: notes the first `length` cells as the destination's too; nothing is copied."""
        assert 0 <= source < self.n_seq_max, "sequence ids are in range"
        assert 0 <= destination < self.n_seq_max, "sequence ids are in range"
        assert source != destination, "a sequence is copied to another one"
        assert (length is None) == (self.n_pool_cells is None), "a length is for unified memory, and needed there"
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
        """The stream's used cells, as llama.cpp writes them; with sliding windows, the last window of those layers."""
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
        """Only a decode does it: computes one row in a stream that is empty, and empties it again."""
        self._tokens[0] = self._positions[0] = self._logits[0] = 0
        self._seq_ids[0] = empty_id
        self._batch.n_tokens = 1
        code: int = self._library.api.llama_decode(self.handle, self._batch)
        self._library.api.llama_synchronize(self.handle)
        self.seq_rm(empty_id, 0)
        if code == 0:
            self._copies_are_done()
        return code == 0

    def _copies_are_done(self) -> None:
        self._copy_sources.clear()
        self._copy_targets.clear()

    def clear(self) -> None:
        """Empties every stream."""
        self._library.api.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        self._library.api.llama_free(self.handle)


def _pointer(array: npt.NDArray[Any], c_type: Any) -> Any:
    """A typed pointer to the array's memory; the array must outlive it."""
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(c_type))


def _pad(n_cells: int) -> int:
    return -(-n_cells // _CELL_PADDING) * _CELL_PADDING
