"""Sequence: the state of one text request in the engine. Owned by the engine thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from inferd.engine.detokenizer import Detokenizer
from inferd.engine.grammar.constraint import Matcher
from inferd.engine.messages import AddRequest, TrafficClass
from inferd.engine.runner import NO_SEQ_ID, Sampler
from inferd.sampling_params import SamplingParams
from inferd.usage import NS_PER_MS, Usage, rounded_ms

PROGRESS_TOKENS = 32
"""New tokens that a preempted sequence computes before it may be preempted again, if it is the oldest such one."""
MAX_CELL_PREEMPTIONS = 2
"""Preemptions for want of cells after which a sequence is admitted only with all the cells that it can need. Batch has
no such limit."""


class SequenceStatus(IntEnum):
    """State of a sequence; only RUNNING ones hold a native sequence id."""

    WAITING = 0
    RUNNING = 1
    FINISHED = 2


@dataclass(slots=True, eq=False)
class Sequence:
    """State of one request. There is no prefill and no decode phase: `num_computed_tokens` chases `num_tokens`, and
    whenever it has caught up, one more token is sampled.

    Attributes:
        matcher: position in the request's grammar, if there is one.
        token_ids: the prompt, then every sampled token.
        num_computed_tokens: tokens whose keys and values are in native memory.
        num_charged_tokens: high-water mark of `num_computed_tokens`. A preemption does not lower it, so that no token
            and no time is billed twice.
        num_cached_tokens: prompt tokens that were in memory when the sequence was first admitted.
        num_scored_tokens: prompt tokens whose log-probabilities were put out, the first token's place included, if the
            request asks for them. A preemption does not lower it.
        compute_ns: this sequence's share of the time of the steps so far.
        num_failures: failed steps since the last good one.
        num_preemptions: preemptions so far.
        num_cell_preemptions: preemptions so far for want of cells.
        arrival: position in the order of arrival.
        turn: position in its tenant's queue.
        arrived_ns: time of arrival, on the engine's clock like all times here.
        queued_ns: time at which it last began to wait.
        admitted_ns: time at which it was last admitted.
        waited_ns: time from its arrival to its first admission.
        slice_began_ns: time at which it had recomputed the tokens that the last preemption took.
        progressed_ns: time of its last computed step, or of its admission.
        has_run: whether a step has computed some of its tokens.
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
    num_scored_tokens: int = 0
    compute_ns: int = 0
    num_failures: int = 0
    num_preemptions: int = 0
    num_cell_preemptions: int = 0
    arrival: int = 0
    turn: int = 0
    arrived_ns: int = 0
    queued_ns: int = 0
    admitted_ns: int = 0
    waited_ns: int = 0
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
    def params(self) -> SamplingParams:
        return self.request.params

    @property
    def is_batch(self) -> bool:
        return self.request.traffic_class is TrafficClass.BATCH

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
    def may_stop(self) -> bool:
        """Whether its last token may end it by a stop string, or as a stop token."""
        return self.num_completion_tokens > self.params.min_tokens

    @property
    def num_tokens_to_come(self) -> int:
        """Tokens that may still be sampled."""
        return self.request.max_tokens - self.num_completion_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def is_to_be_scored(self) -> bool:
        """Whether log-probabilities of its prompt are asked for, and missing."""
        return self.request.params.prompt_logprobs is not None and self.num_scored_tokens < self.num_prompt_tokens

    @property
    def num_reusable_tokens(self) -> int:
        """Most of its tokens that may come from memory: the last one is computed for its logits, and the prompt from
        the first row on whose log-probabilities are missing."""
        return max(0, self.num_scored_tokens - 1) if self.is_to_be_scored else len(self.token_ids) - 1

    def rows_to_score(self, num_tokens: int) -> range:
        """Return the positions among its next `num_tokens` rows whose logits say how probable the prompt token after
        them was, and have not been read."""
        if not self.is_to_be_scored:
            return range(0)
        start, last = self.num_computed_tokens, self.num_prompt_tokens - 1
        return range(max(start, self.num_scored_tokens - 1), max(start, min(start + num_tokens, last)))

    def num_attended_cells(self, num_rows: int) -> int:
        """Return the sum, over its next rows, of the cells that each attends to."""
        return num_rows * self.num_computed_tokens + num_rows * (num_rows + 1) // 2

    @property
    def num_tokens_to_checkpoint(self) -> int:
        """Tokens up to the prompt's last one, where memory that cannot be cut is saved for reuse; 0 past that."""
        return max(0, self.num_prompt_tokens - 1 - self.num_computed_tokens)

    @property
    def is_at_checkpoint(self) -> bool:
        """Whether all of the prompt except its last token has just been computed."""
        return self.num_computed_tokens == self.num_prompt_tokens - 1

    @property
    def group(self) -> str:
        """Name of the call that the request belongs to."""
        request = self.request
        return request.group or request.request_id

    @property
    def reserves_cells(self) -> bool:
        """Whether it is admitted only with all the cells that it can need, and is not preempted for cells again."""
        return self.num_cell_preemptions >= MAX_CELL_PREEMPTIONS and not self.is_batch

    @property
    def is_owed_progress(self) -> bool:
        """Whether it has computed too little since it was preempted. Batch is owed nothing."""
        num_new = self.num_charged_tokens - self._num_charged_at_preemption
        return self.num_preemptions > 0 and num_new < PROGRESS_TOKENS and not self.is_batch

    def count_preemption(self, *, for_cells: bool) -> None:
        self.num_preemptions += 1
        self.num_cell_preemptions += for_cells
        self._num_charged_at_preemption = self.num_charged_tokens

    def start(self, now_ns: int) -> None:
        """Set the status to RUNNING, and the times of its admission."""
        self.status = SequenceStatus.RUNNING
        if not self.has_run and not self.num_preemptions:
            self.waited_ns = now_ns - self.arrived_ns
        self.admitted_ns = self.slice_began_ns = self.progressed_ns = now_ns

    def reuse(self, length: int) -> None:
        """Record that memory holds the first `length` tokens at its admission.

        Prompt tokens reused before the first computed step are billed as cached. If the sequence is preempted before
        that step, the count is reset.
        """
        self.num_computed_tokens = length
        if self.has_run:
            self.num_charged_tokens = max(self.num_charged_tokens, length)
        else:
            self.num_charged_tokens = length
            self.num_cached_tokens = min(length, self.num_prompt_tokens)

    def advance(self, num_tokens: int, *, step_ns: int, num_rows: int) -> None:
        """Record that a step of `num_rows` rows and `step_ns` computed the next `num_tokens` tokens.

        The share of the time is rounded down, so that the shares of all sequences never exceed the time that the
        device was busy.
        """
        self.has_run = True
        self.num_computed_tokens += num_tokens
        num_new = max(0, self.num_computed_tokens - self.num_charged_tokens)
        self.num_charged_tokens += num_new
        self.compute_ns += step_ns * num_new // num_rows
        self.num_failures = 0

    def charge_scoring(self, num_tokens: int, scoring_ns: int) -> None:
        """Record that the log-probabilities of the next `num_tokens` prompt tokens were put out, and charge the time
        that they took to this sequence alone: others of the step did not ask for it."""
        self.num_scored_tokens += num_tokens
        self.compute_ns += scoring_ns

    @property
    def charged_ns(self) -> int:
        """Compute time that is charged: time of the last step beyond the limit is not (BILLING R4)."""
        limit_ms = self.request.max_compute_ms
        return self.compute_ns if limit_ms is None else min(self.compute_ns, limit_ms * NS_PER_MS)

    @property
    def is_out_of_time(self) -> bool:
        """Whether it has used up its limit of compute time."""
        limit_ms = self.request.max_compute_ms
        return limit_ms is not None and self.compute_ns >= limit_ms * NS_PER_MS

    def usage(self) -> Usage:
        """Return the usage so far (BILLING R14, R16), nothing before its first step."""
        if not self.has_run:
            return Usage()
        return Usage(
            prompt_tokens=min(self.num_charged_tokens, self.num_prompt_tokens),
            cached_tokens=self.num_cached_tokens,
            completion_tokens=self.num_completion_tokens,
            compute_ms=rounded_ms(self.charged_ns),
        )
