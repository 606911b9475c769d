"""Stand-ins without weights: a runner that models llama.cpp's memory, a tokenizer of bytes, a clock to turn by hand."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar.compiler import ConstraintCompiler
from inferd.engine.grammar.constraint import CompiledConstraint, grammar_of
from inferd.engine.grammar.trial import GrammarVocabulary, tokenizer_of
from inferd.engine.runner import Batch, MemoryKind, SequenceState
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import NO_LIMITS, EncodeLimits, Segment

END = 256
BEGIN = 257
N_VOCAB = 258
RUINED = -1
"""What stands in memory for a row that was never computed."""
NOT_COPIED_YET = -2
"""What can be read of a cell before the copy to it is carried out."""


@dataclass
class FakeClock:
    """A clock that stands still until it is told otherwise."""

    now_ns: int = 0

    def __call__(self) -> int:
        return self.now_ns

    def advance_ms(self, ms: float) -> None:
        self.now_ns += int(ms * 1_000_000)


class ByteTokenizer:
    """One token a byte; two control tokens, which only special text can write."""

    n_vocab = N_VOCAB
    max_token_bytes = 1
    bos_text = "<|begin|>"
    eos_text = "<|end|>"
    control_texts = ("<|begin|>", "<|end|>")

    def show(self, texts: Sequence[str]) -> None:
        assert not texts, "no family writes these"

    def encode(
        self, segments: Sequence[Segment], limits: EncodeLimits = NO_LIMITS, *, add_bos: bool = True
    ) -> list[int]:
        token_ids: list[int] = []
        for segment in segments:
            if limits.check is not None:
                limits.check()
            text = segment.text
            if segment.special:
                text = text.replace("<|begin|>", "\ue001").replace("<|end|>", "\ue002")
            for character in text:
                if segment.special and character in "\ue001\ue002":
                    token_ids.append(BEGIN if character == "\ue001" else END)
                else:
                    token_ids += character.encode("utf-8")
        return token_ids if token_ids[:1] == [BEGIN] or not add_bos else [BEGIN, *token_ids]

    def encode_document(self, text: str, limits: EncodeLimits = NO_LIMITS, *, most: int | None = None) -> list[int]:
        if limits.check is not None:
            limits.check()
        return [BEGIN, *text.encode("utf-8")][:most]

    def token_bytes(self, token_id: int) -> bytes:
        return {BEGIN: b"<|begin|>", END: b"<|end|>"}.get(token_id) or bytes([token_id])

    def decode(self, token_ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", "replace")


GRAMMAR_VOCABULARY = GrammarVocabulary(
    tokens=(*(bytes([byte]) for byte in range(256)), b"\xff<|end|>", b"\xff<|begin|>"),
    control_ids=(END, BEGIN),
    end_ids=(END,),
)


def constraint_compiler() -> ConstraintCompiler:
    """For the vocabulary of bytes; to be closed."""
    return ConstraintCompiler(_grammar_tokenizer(), GRAMMAR_VOCABULARY)


def compiled(kind: ConstraintKind, source: str, **limits: float) -> CompiledConstraint:
    """Compile without a trial; `limits` are those of CompiledConstraint."""
    matcher = LLMatcher(_grammar_tokenizer(), grammar_of(Constraint(kind, source)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return CompiledConstraint(matcher, N_VOCAB, **limits)


@functools.cache
def _grammar_tokenizer() -> LLTokenizer:
    return tokenizer_of(GRAMMAR_VOCABULARY)


@dataclass
class FakeSampler:
    params: SamplingParams
    sampled: list[int] = field(default_factory=list)
    closed: bool = False

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


@dataclass
class Failure:
    """The next `execute` returns `code` after `rows_done` rows have gone into memory. The next `rows_lost` rows are
    those of the ubatch that failed: llama.cpp cuts them out again, except from memory that can't be cut, which keeps
    their positions over a ruined state. With 1 (no room) and -1 (refused) nothing changes."""

    code: int
    rows_done: int = 0
    rows_lost: int = 0

    def __post_init__(self) -> None:
        if self.code in (1, -1):
            self.rows_done = self.rows_lost = 0


class FakeRunner:
    """Memory as llama.cpp keeps it: cells per sequence, consecutive positions. The token that it samples is a
    function of what is really in the sequence's memory, so that wrong memory makes wrong text.

    Args:
        cuts: False models recurrent memory, which can only be copied or dropped whole.
        window_size: not 0 models sliding-window attention: cells that a later row no longer sees get overwritten, but
            for the last `window_slack` of them, and a state in host RAM never has them.
        reuses: False models memory of an unknown kind.
        step_ms, row_ms: how far each step, and each of its rows, turns the clock.
        answer: what every sequence says, then its end token; instead of a function of its memory.
    """

    def __init__(
        self,
        *,
        max_sequences: int = 4,
        max_running: int | None = None,
        max_rows: int = 64,
        max_outputs: int = 16,
        cells_per_sequence: int = 256,
        cuts: bool = True,
        window_size: int = 0,
        window_slack: int = 8,
        reuses: bool = True,
        clock: FakeClock | None = None,
        step_ms: float = 1.0,
        row_ms: float = 0.0,
        answer: bytes | None = None,
    ) -> None:
        self.max_sequences = max_sequences
        self.max_running = max_running or max_sequences
        self.num_pool_cells: int | None = None
        self.max_rows = max_rows
        self.max_outputs = max(max_outputs, max_sequences)
        self.cells_per_sequence = cells_per_sequence
        self.vocab_size = N_VOCAB
        self.memory: list[list[int]] = [[] for _ in range(max_sequences)]
        self.failures: list[Failure | None] = []
        self.rows_per_step: list[int] = []
        self.rows_by_sequence: list[dict[int, int]] = []
        self.samplers: list[FakeSampler] = []
        self.crash: Exception | None = None
        self.closed = False
        self.window_size = window_size
        self.memory_kind = MemoryKind.WINDOW if window_size else MemoryKind.PLAIN if cuts else MemoryKind.RECURRENT
        if not reuses:
            self.memory_kind = MemoryKind.OPAQUE
        self.num_copies = 0
        self.num_restores = 0
        self.num_restores_to_fail = 0
        self._cells: list[list[int]] = [[] for _ in range(max_sequences)]
        self._copies: list[tuple[int, int]] = []
        self._num_lost = [0] * max_sequences
        self._cuts = cuts
        self._clock = clock
        self._step_ms = step_ms
        self._row_ms = row_ms
        self._answer = answer
        self._slack = window_slack
        self._outputs: dict[int, npt.NDArray[np.float32]] = {}

    @staticmethod
    def next_token(memory: Sequence[int]) -> int:
        """Deterministic, in b"a".."z", and dependent on every token in memory."""
        value = 7
        for token_id in memory:
            value = (value * 31 + token_id + 1) % 1_000_003
        return 97 + value % 26

    @classmethod
    def continuation(cls, prompt: Sequence[int], num_tokens: int) -> bytes:
        """What a fault-free run generates."""
        memory = list(prompt)
        for _ in range(num_tokens):
            memory.append(cls.next_token(memory))
        return bytes(memory[len(prompt) :])

    def execute(self, batch: Batch) -> int:
        self._begin(batch)
        failure = self.failures.pop(0) if self.failures else None
        if failure is None or failure.code != -1:
            self._carry_out_copies()
        num_rows = batch.num_rows if failure is None else min(batch.num_rows, failure.rows_done)
        drafting: set[int] = set()
        for row in range(num_rows):
            memory = self.memory[batch.seq_ids[row]]
            assert batch.positions[row] == len(memory), "positions are consecutive"
            assert len(memory) < self.cells_per_sequence, "no cell left"
            seq_id = batch.seq_ids[row]
            self._look_back(seq_id, overwrites=seq_id not in drafting)
            self._write(seq_id, batch.token_ids[row])
            if batch.wants_logits[row]:
                self._outputs[row] = self.logits_of(memory)
                drafting.add(seq_id)
        if failure is None:
            return 0
        if not self._cuts:
            for seq_id in batch.seq_ids[num_rows : num_rows + failure.rows_lost]:
                self._write(seq_id, RUINED)
        self._outputs = {}
        return failure.code

    def _begin(self, batch: Batch) -> None:
        if self.crash is not None:
            raise self.crash
        assert 0 < batch.num_rows <= self.max_rows, "rows"
        assert sum(batch.wants_logits) <= self.max_outputs, "rows with logits"
        owners = [seq_id for seq_id, _ in itertools.groupby(batch.seq_ids)]
        assert len(owners) == len(set(owners)), "the rows of a sequence are together"
        if self._clock is not None:
            self._clock.advance_ms(self._step_ms + self._row_ms * batch.num_rows)
        self.rows_per_step.append(batch.num_rows)
        self.rows_by_sequence.append(dict(Counter(batch.seq_ids)))
        self._outputs = {}

    @classmethod
    def logits_of(cls, memory: Sequence[int]) -> npt.NDArray[np.float32]:
        """The best one is `next_token`, then the others, the highest id first."""
        logits = np.linspace(0.0, 1.0, N_VOCAB, dtype=np.float32)
        logits[cls.next_token(memory)] = 10.0
        return logits

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        return self._outputs[row]

    def sample(self, sampler: FakeSampler, row: int) -> int | None:
        assert not sampler.closed, "sampled after close"
        return self.sample_from(sampler, self._outputs[row])

    def sample_from(self, sampler: FakeSampler, logits: npt.NDArray[np.float32]) -> int | None:
        if not np.isfinite(logits.max()):
            return None
        logits = logits.copy()
        if self._answer is not None:
            num_sampled = len(sampler.sampled)
            logits[self._answer[num_sampled] if num_sampled < len(self._answer) else END] += 50.0
        for biased_id, bias in sampler.params.logit_bias:
            logits[biased_id] += bias
        token_id = int(logits.argmax())
        sampler.sampled.append(token_id)
        return token_id

    @property
    def num_samplers(self) -> int:
        """As many as there are requests that the engine has taken and that have not ended."""
        return sum(not sampler.closed for sampler in self.samplers)

    def new_sampler(self, params: SamplingParams, prompt: Sequence[int] = ()) -> FakeSampler:
        sampler = FakeSampler(params)
        self.samplers.append(sampler)
        return sampler

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        assert 0 <= seq_id < self.max_sequences, "sequence id"
        assert end == -1, "a stream is cut at its end"
        if start > 0 and not self._cuts:
            return False
        del self.memory[seq_id][start:]
        if start == 0:
            self._num_lost[seq_id] = 0
        return True

    def seq_pos_min(self, seq_id: int) -> int:
        return self._num_lost[seq_id] if self.seq_pos_max(seq_id) >= 0 else -1

    def seq_cp(self, source: int, destination: int, length: int | None = None) -> None:
        assert length is None, "llama.cpp aborts on a range between streams"
        assert source != destination, "a stream is copied to another one"
        assert not self.memory[destination], "the other stream is empty"
        self.memory[destination] = [NOT_COPIED_YET] * len(self.memory[source])
        self._copies.append((source, destination))
        self._num_lost[destination] = self._num_lost[source]
        self.num_copies += 1

    def seq_state_size(self, seq_id: int) -> int:
        return 4 * (1 + len(self.memory[seq_id]))

    def is_readable(self, seq_id: int) -> bool:
        return all(seq_id != destination for _, destination in self._copies)

    def is_writable(self, seq_id: int) -> bool:
        return all(seq_id not in copy for copy in self._copies)

    def seq_state(self, seq_id: int) -> SequenceState:
        assert self.is_readable(seq_id), "its cells are there"
        num_tokens = len(self.memory[seq_id])
        num_lost = max(self._num_lost[seq_id], num_tokens - self.window_size) if self.window_size else 0
        return np.array([num_lost, *self.memory[seq_id]], dtype=np.int32).view(np.uint8)

    def restore_seq(self, seq_id: int, state: SequenceState) -> bool:
        assert not self.memory[seq_id], "the stream is empty"
        if not self.is_writable(seq_id):
            self._carry_out_copies()
        self.num_restores += 1
        if self.num_restores_to_fail:
            self.num_restores_to_fail -= 1
            self._write(seq_id, RUINED)
            return False
        self._num_lost[seq_id], *self.memory[seq_id] = state.view(np.int32).tolist()
        self._cells[seq_id] = list(self.memory[seq_id])
        return True

    def contents(self, seq_id: int) -> list[int]:
        """The tokens that a sequence's memory was computed from, copies that are still to come included."""
        cells = [list(stream) for stream in self._cells]
        for source, destination in self._copies:
            cells[destination] = list(cells[source])
        return cells[seq_id][: len(self.memory[seq_id])]

    def _write(self, seq_id: int, token_id: int) -> None:
        del self._cells[seq_id][len(self.memory[seq_id]) :]
        self._cells[seq_id].append(token_id)
        self.memory[seq_id].append(token_id)

    def _carry_out_copies(self) -> None:
        """llama.cpp copies cells when it decodes next; cutting a stream only changes what it counts as used."""
        for source, destination in self._copies:
            self._cells[destination] = list(self._cells[source])
        for _, destination in self._copies:
            self.memory[destination] = self._cells[destination][: len(self.memory[destination])]
        self._copies.clear()

    @staticmethod
    def read(state: SequenceState) -> list[int]:
        """The tokens in a copy of a sequence's memory."""
        return [int(token_id) for token_id in state.view(np.int32)[1:]]

    def _look_back(self, seq_id: int, *, overwrites: bool) -> None:
        """Check that a row finds the last `window_size` cells, and overwrite older ones. Rows of a draft overwrite
        nothing that the row before them sees: they are of its ubatch (find_slot)."""
        if self.window_size:
            first = max(0, len(self.memory[seq_id]) - self.window_size + 1)
            assert self._num_lost[seq_id] <= first, "a cell within the window was overwritten"
            if overwrites:
                self._num_lost[seq_id] = max(self._num_lost[seq_id], first - self._slack)

    def seq_pos_max(self, seq_id: int) -> int:
        """A stream that was cut back before the window that it still has seems empty: llama.cpp asks the layers that
        have a window."""
        assert 0 <= seq_id < self.max_sequences, "sequence id"
        num_tokens = len(self.memory[seq_id])
        return num_tokens - 1 if num_tokens > self._num_lost[seq_id] else -1

    def is_end_of_generation(self, token_id: int) -> bool:
        return token_id == END

    def token_to_piece(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def close(self) -> None:
        assert all(sampler.closed for sampler in self.samplers), "samplers are closed first"
        self.closed = True
