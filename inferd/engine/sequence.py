"""A request's whole life in the engine, on one object. Owned by the engine thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from inferd.engine.detokenizer import Detokenizer
from inferd.engine.grammar.constraint import Matcher
from inferd.engine.messages import AddRequest, TrafficClass
from inferd.engine.runner import NO_SEQ_ID, Sampler
from inferd.usage import Usage, rounded_ms

_NS_PER_MS = 1_000_000
PROGRESS_TOKENS = 32
"""New tokens that a preempted sequence computes before it may be preempted again, if it is the oldest such one."""
MAX_CELL_PREEMPTIONS = 2
"""How often a sequence loses its stream because the pool is full; then it is admitted only with all the cells that it
can need. Batch may always lose it."""


class SequenceStatus(IntEnum):
    """Where a sequence stands; only RUNNING ones hold a native sequence id."""

    WAITING = 0
    RUNNING = 1
    FINISHED = 2


@dataclass(slots=True, eq=False)
class Sequence:
    """There is no prefill and no decode phase: `num_computed_tokens` chases `num_tokens`, and whenever it has
    caught up, one more token is sampled.

    Attributes:
        has_run: a step has computed some of it.
        matcher: its place in the grammar that it must keep, if there is one.
        token_ids: the prompt, then every sampled token.
        num_computed_tokens: tokens whose keys and values are in the native memory.
        num_charged_tokens: high-water mark of `num_computed_tokens`. Losing computed tokens does not lower it:
            nobody pays twice, neither in tokens nor in time.
        compute_ns: this sequence's share of the time of the steps so far.
        num_cached_tokens: prompt tokens that were in memory when it first got a stream.
        num_failures: failed steps since the last good one.
        num_preemptions: how often it lost its stream.
        num_cell_preemptions: how often of these because the pool of cells was full.
        arrival: its place in the order of arrival.
        turn: its place in its tenant's queue.
        arrived_ns: when it arrived, on the engine's clock, as all times here.
        queued_ns: when it last began to wait for a stream.
        stream_began_ns: when it last got a stream.
        slice_began_ns: when it had computed again in this stream what it had lost with the last one.
        progressed_ns: when a step last computed some of it, or when it got its stream.
    """

    request: AddRequest
    sampler: Sampler
    detokenizer: Detokenizer
    matcher: Matcher | None = None
    token_ids: list[int] = field(init=False)
    status: SequenceStatus = SequenceStatus.WAITING
    seq_id: int = NO_SEQ_ID
    num_computed_tokens: int = 0
    num_charged_tokens: int = 0
    num_cached_tokens: int = 0
    compute_ns: int = 0
    num_failures: int = 0
    num_preemptions: int = 0
    num_cell_preemptions: int = 0
    arrival: int = 0
    turn: int = 0
    arrived_ns: int = 0
    queued_ns: int = 0
    stream_began_ns: int = 0
    slice_began_ns: int = 0
    progressed_ns: int = 0
    has_run: bool = False
    _num_charged_at_preemption: int = 0

    def __post_init__(self) -> None:
        self.token_ids = list(self.request.prompt)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt)

    @property
    def num_completion_tokens(self) -> int:
        return len(self.token_ids) - len(self.request.prompt)

    @property
    def num_tokens_to_come(self) -> int:
        """Tokens that may still be sampled."""
        return self.request.max_tokens - self.num_completion_tokens

    @property
    def group(self) -> str:
        """The call that it is a part of."""
        request = self.request
        return request.group or request.request_id

    @property
    def reserves_cells(self) -> bool:
        """It runs only where the pool has all the cells that it can need, so it is never preempted for cells again."""
        is_batch = self.request.traffic_class is TrafficClass.BATCH
        return self.num_cell_preemptions >= MAX_CELL_PREEMPTIONS and not is_batch

    @property
    def is_owed_progress(self) -> bool:
        """It has computed too little since it was preempted. Batch is owed nothing."""
        is_batch = self.request.traffic_class is TrafficClass.BATCH
        num_new = self.num_charged_tokens - self._num_charged_at_preemption
        return self.num_preemptions > 0 and num_new < PROGRESS_TOKENS and not is_batch

    def count_preemption(self, *, for_cells: bool) -> None:
        self.num_preemptions += 1
        self.num_cell_preemptions += for_cells
        self._num_charged_at_preemption = self.num_charged_tokens

    def begin_stream(self, now_ns: int) -> None:
        """It gets a stream, and its first slice of time."""
        self.stream_began_ns = self.slice_began_ns = self.progressed_ns = now_ns

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def num_tokens_to_checkpoint(self) -> int:
        """Tokens up to the prompt's last one, where memory that cannot be cut is kept for others; 0 past that."""
        return max(0, self.num_prompt_tokens - 1 - self.num_computed_tokens)

    @property
    def is_at_checkpoint(self) -> bool:
        """All of the prompt but its last token has just been computed."""
        return self.num_computed_tokens == self.num_prompt_tokens - 1

    def reuse(self, length: int) -> None:
        """A new stream holds its first `length` tokens already. Nobody pays for computing them; those of the prompt
        are billed as cached, if it has computed nothing itself so far. If it loses its stream before that, what it
        had found there does not count."""
        self.num_computed_tokens = length
        if self.has_run:
            self.num_charged_tokens = max(self.num_charged_tokens, length)
        else:
            self.num_charged_tokens = length
            self.num_cached_tokens = min(length, self.num_prompt_tokens)

    def advance(self, n_tokens: int, *, step_ns: int, n_rows: int) -> None:
        """Records that a step of `n_rows` rows and `step_ns` computed the next `n_tokens`. Its share is rounded down,
        so that all shares together never exceed the time that the device was busy."""
        self.has_run = True
        self.num_computed_tokens += n_tokens
        num_new = max(0, self.num_computed_tokens - self.num_charged_tokens)
        self.num_charged_tokens += num_new
        self.compute_ns += step_ns * num_new // n_rows
        self.num_failures = 0

    @property
    def charged_ns(self) -> int:
        """Of `compute_ns`; what the last step took beyond the limit is not charged (BILLING R4)."""
        most_ms = self.request.max_compute_ms
        return self.compute_ns if most_ms is None else min(self.compute_ns, most_ms * _NS_PER_MS)

    @property
    def compute_ms(self) -> int:
        """What is charged, rounded half-up."""
        return rounded_ms(self.charged_ns)

    @property
    def is_out_of_time(self) -> bool:
        """It has used up the compute that it may have."""
        most_ms = self.request.max_compute_ms
        return most_ms is not None and self.compute_ns >= most_ms * _NS_PER_MS

    def usage(self) -> Usage:
        """What has been used so far (BILLING R14, R16), nothing before its first step."""
        if not self.has_run:
            return Usage()
        return Usage(
            prompt_tokens=min(self.num_charged_tokens, self.num_prompt_tokens),
            cached_tokens=self.num_cached_tokens,
            completion_tokens=self.num_completion_tokens,
            compute_ms=self.compute_ms,
        )
