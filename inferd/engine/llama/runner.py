"""The Runner over a real model."""

from __future__ import annotations

from inferd.engine.llama.context import Context
from inferd.engine.llama.model import Model
from inferd.engine.llama.samplers import MIN_TEMPERATURE, GreedySampler, SamplerChain, SoftmaxSampler, is_drawable
from inferd.engine.runner import Batch, Logits, MemoryKind, Sampler, SequenceState
from inferd.sampling_params import SamplingParams

AnySampler = GreedySampler | SoftmaxSampler | SamplerChain


class LlamaRunner:
    """Owns its context and its model."""

    def __init__(self, model: Model, context: Context, *, max_context: int, n_running_max: int | None = None) -> None:
        self._model = model
        self._context = context
        self.n_seq_max = context.n_seq_max
        self.n_running_max = n_running_max or context.n_seq_max
        self.n_pool_cells = context.n_pool_cells
        self.n_rows_max = context.n_ubatch
        self.n_outputs_max = context.n_outputs_max
        self.cells_per_sequence = max_context
        self.n_vocab = model.vocabulary.n_vocab
        self.n_window = model.n_window
        self.memory_kind = _memory_kind(model, context)

    def execute(self, batch: Batch) -> int:
        return self._context.decode(batch)

    def logits(self, row: int) -> Logits:
        return self._context.logits(row)

    def sample(self, sampler: Sampler, row: int) -> int | None:
        assert isinstance(sampler, AnySampler), "samplers come from new_sampler"
        logits = self.logits(row)
        if not isinstance(sampler, SamplerChain):
            return sampler.draw(logits)
        return self._context.sample(sampler.handle, row) if is_drawable(logits) else None

    def sample_from(self, sampler: Sampler, logits: Logits) -> int | None:
        assert isinstance(sampler, AnySampler), "samplers come from new_sampler"
        return sampler.draw(logits)

    def new_sampler(self, params: SamplingParams) -> AnySampler:
        if params.penalizes or params.typical_p < 1.0:
            return SamplerChain(self._model.library, params, n_vocab=self.n_vocab, history=self.cells_per_sequence)
        if params.temperature < MIN_TEMPERATURE:
            return GreedySampler(params, n_vocab=self.n_vocab)
        return SoftmaxSampler(params, n_vocab=self.n_vocab)

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        return self._context.seq_rm(seq_id, start, end)

    def seq_pos_max(self, seq_id: int) -> int:
        return self._context.seq_pos_max(seq_id)

    def seq_pos_min(self, seq_id: int) -> int:
        return self._context.seq_pos_min(seq_id)

    def seq_cp(self, source: int, destination: int, length: int | None = None) -> None:
        self._context.seq_cp(source, destination, length)

    def is_readable(self, seq_id: int) -> bool:
        return self._context.is_readable(seq_id)

    def is_writable(self, seq_id: int) -> bool:
        return self._context.is_writable(seq_id)

    def seq_state_size(self, seq_id: int) -> int:
        return self._context.seq_state_size(seq_id)

    def seq_state(self, seq_id: int) -> SequenceState:
        return self._context.seq_state(seq_id)

    def restore_seq(self, seq_id: int, state: SequenceState) -> bool:
        return self._context.restore_seq(seq_id, state)

    def is_end_of_generation(self, token_id: int) -> bool:
        return token_id in self._model.vocabulary.end_of_generation

    def token_to_piece(self, token_id: int) -> bytes:
        return self._model.vocabulary.piece(token_id)

    def warm_up(self) -> None:
        """A full step, one of one row, one of a row for every sequence that may run: graphs are built and memory is
        touched before the first request, and a model that cannot compute is found out now. Raises RuntimeError."""
        n_rows = min(self.n_rows_max, self.cells_per_sequence)
        for shape in ([n_rows], [1], [1] * self.n_running_max):
            code = self._context.decode(_dummy_batch(shape))
            self._context.clear()
            if code != 0:
                raise RuntimeError(f"llama_decode returned {code} while {self._model.path.name} was warmed up")

    def close(self) -> None:
        self._context.close()
        self._model.close()


def _memory_kind(model: Model, context: Context) -> MemoryKind:
    if model.is_recurrent:
        return MemoryKind.RECURRENT
    if not _can_be_cut(context):
        return MemoryKind.OPAQUE
    return MemoryKind.WINDOW if model.n_window else MemoryKind.PLAIN


def _can_be_cut(context: Context) -> bool:
    """Tries it: computes two tokens and cuts off the second."""
    context.decode(_dummy_batch([2]))
    cut = context.seq_rm(0, 1) and context.seq_pos_max(0) == 0
    context.clear()
    return cut


def _dummy_batch(rows_per_sequence: list[int]) -> Batch:
    """Token 0 everywhere, logits on each sequence's last row."""
    rows = [
        (seq_id, row, row == n_rows - 1) for seq_id, n_rows in enumerate(rows_per_sequence) for row in range(n_rows)
    ]
    seq_ids, positions, wants_logits = map(list, zip(*rows, strict=True))
    return Batch([0] * len(seq_ids), positions, seq_ids, wants_logits)
