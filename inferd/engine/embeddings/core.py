"""Embedding requests: steps of bounded size over the inputs of many requests. Synchronous, like EngineCore."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.embeddings.embedder import Embedder, EmbeddingChunk
from inferd.engine.embeddings.pooling import Pool, Pooling, Rows
from inferd.engine.fairness import FairShare
from inferd.engine.messages import EmbedRequest, FinishReason, RequestOutput, TrafficClass
from inferd.errors import ConfigError
from inferd.usage import Usage, rounded_ms

_NS_PER_MS = 1_000_000
_MAX_OVERSHOOT = 2
"""A request that turns out to take more than its compute limit may have so many times of it: a rate that was measured
before says how long it takes, and beside other load that is only roughly right."""


class EmbeddingJob:
    """Attributes:
    num_given: inputs that were given to the embedder, some of them perhaps not to their end.
    compute_ns: this request's share of the steps.
    """

    def __init__(self, request: EmbedRequest) -> None:
        self.request = request
        self.num_given = 0
        self.compute_ns = 0
        self._num_tokens = 0
        self._pools: dict[int, Pool] = {}
        self._vectors: list[Rows] = []

    @property
    def is_complete(self) -> bool:
        return len(self._vectors) == len(self.request.inputs)

    @property
    def is_out_of_time(self) -> bool:
        limit_ms = self.request.max_compute_ms
        return limit_ms is not None and self.compute_ns > _MAX_OVERSHOOT * limit_ms * _NS_PER_MS

    def add_rows(self, index: int, rows: Rows, pooling: Pooling) -> None:
        """The next rows of input `index`."""
        self._num_tokens += len(rows)
        self._pools.setdefault(index, Pool(pooling)).add(rows)

    def complete(self, index: int) -> None:
        """Input `index` has all of its rows; inputs are completed in order."""
        assert index == len(self._vectors), "inputs are completed in order"
        self._vectors.append(self._pools.pop(index).vector())

    @property
    def _charged_ns(self) -> int:
        """Time beyond the limit is not charged (BILLING R14)."""
        limit_ms = self.request.max_compute_ms
        return self.compute_ns if limit_ms is None else min(self.compute_ns, limit_ms * _NS_PER_MS)

    def output(self, reason: FinishReason, error: str | None = None) -> RequestOutput:
        """The terminal one. Its usage is what was computed."""
        return RequestOutput(
            self.request.request_id,
            finish_reason=reason,
            usage=Usage(prompt_tokens=self._num_tokens, compute_ms=rounded_ms(self._charged_ns)),
            compute_ns=self._charged_ns,
            error=error,
            embeddings=np.stack(self._vectors) if reason is FinishReason.STOP else None,
        )


_NS_PER_MS = 1_000_000
_TILE_ROWS = 64
"""A step beside others has at least so many rows: fewer take as long on a CPU."""
_WEIGHT_OF_LAST_STEP = 0.2
_NUM_STEPS_TO_MEASURE = 8
_MEASURED_FOR_NS = 60_000_000_000

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Input:
    """One that is being computed. `n_done` of its tokens are in the memory of its slot."""

    job: EmbeddingJob
    index: int
    slot: int
    n_done: int = 0

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.job.request.inputs[self.index]


class EmbeddingCore:
    """Makes the vectors of requests, in order of class, then of who was served least.

    Args:
        make_embedder: called at the first request, on the thread that steps; raises ConfigError.
        max_step_ms: how long a step may take while somebody waits for a next token.
        compute_turn: of the device.

    Every request that `add_request` took ends in exactly one output.
    """

    def __init__(
        self,
        make_embedder: Callable[[], Embedder],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        *,
        max_step_ms: float,
        compute_turn: ComputeTurn | None = None,
    ) -> None:
        self._make_embedder = make_embedder
        self._embedder: Embedder | None = None
        self._clock_ns = clock_ns
        self._max_step_ms = max_step_ms
        self._compute_turn = compute_turn or ComputeTurn()
        self._jobs: dict[str, EmbeddingJob] = {}
        self._current: _Input | None = None
        self._served = FairShare()
        self._outputs: list[RequestOutput] = []
        self._ms_per_row = 1.0
        self._full_steps_ms_per_row: deque[float] = deque(maxlen=_NUM_STEPS_TO_MEASURE)
        self._measured_ns = 0

    @property
    def has_work(self) -> bool:
        return bool(self._jobs)

    @property
    def has_urgent_work(self) -> bool:
        """Whether some of it is more than batch."""
        return any(job.request.traffic_class is not TrafficClass.BATCH for job in self._jobs.values())

    @property
    def tokens_per_s(self) -> float:
        """As fast as the last steps were."""
        return 1000.0 / self._ms_per_row

    @property
    def ms_per_token(self) -> float | None:
        """Compute of a token in the fastest of the last steps of a tile and more; None: there was none in the last
        minute. The fastest, because a request is refused by it, and a step that was held up says little of the next."""
        if self._clock_ns() - self._measured_ns > _MEASURED_FOR_NS:
            return None
        return min(self._full_steps_ms_per_row, default=None)

    def add_request(self, request: EmbedRequest) -> None:
        assert request.request_id not in self._jobs, "request ids are unique"
        self._served.enter(request.tenant)
        self._jobs[request.request_id] = EmbeddingJob(request)

    def abort(self, request_id: str) -> None:
        """Ends a request; what was computed is in its usage. Nothing happens if it has just ended."""
        if (job := self._jobs.get(request_id)) is not None:
            self._finish(job, FinishReason.CANCELLED)

    def abort_all(self, error: str) -> None:
        for job in list(self._jobs.values()):
            self._finish(job, FinishReason.ERROR, error)

    def take_outputs(self) -> list[RequestOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def step(self, *, is_alone: bool) -> None:
        """One native call. `is_alone`: nobody waits for a next token, so it may be as large as the embedder takes."""
        try:
            embedder = self.load()
        except ConfigError as error:
            logger.error("no embeddings: %s", error)
            self.abort_all(str(error))
            return
        inputs = self._choose(embedder, self._row_budget(embedder, is_alone=is_alone))
        urgency = min(one.job.request.traffic_class for one, _ in inputs)
        with self._compute_turn.take(urgency):
            self._compute(embedder, inputs)

    def load(self) -> Embedder:
        """Makes the embedder, unless it is there. Raises ConfigError."""
        if self._embedder is None:
            self._embedder = self._make_embedder()
        return self._embedder

    def close(self) -> None:
        assert not self._jobs, "close comes after abort_all"
        if self._embedder is not None:
            self._embedder.close()

    def _row_budget(self, embedder: Embedder, *, is_alone: bool) -> int:
        if is_alone:
            return embedder.n_rows_max
        n_tiles = max(1, int(self._max_step_ms / self._ms_per_row) // _TILE_ROWS)
        return min(embedder.n_rows_max, n_tiles * _TILE_ROWS)

    def _choose(self, embedder: Embedder, n_rows: int) -> list[tuple[_Input, int]]:
        """What comes next: inputs, each with how many of its tokens. The one that is under way comes first; where an
        input has to come whole, the first of a step may exceed the budget."""
        chosen: list[tuple[_Input, int]] = []
        slots = list(range(embedder.n_slots))
        if self._current is not None:
            slots.remove(self._current.slot)
        while n_rows > 0:
            one = self._current or self._next_input(slots)
            if one is None:
                break
            self._current = one
            left = len(one.token_ids) - one.n_done
            if left > n_rows and not embedder.is_causal and chosen:
                break
            n_tokens = min(left, n_rows) if embedder.is_causal else left
            chosen.append((one, n_tokens))
            one.job.num_given = max(one.job.num_given, one.index + 1)
            self._served.charge(one.job.request.tenant, prompt_tokens=n_tokens)
            n_rows -= n_tokens
            if n_tokens < left:
                break
            self._current = None
        return chosen

    def _next_input(self, slots: list[int]) -> _Input | None:
        waiting = [job for job in self._jobs.values() if job.num_given < len(job.request.inputs)]
        if not waiting or not slots:
            return None
        job = min(waiting, key=lambda job: (job.request.traffic_class, self._served.served(job.request.tenant)))
        return _Input(job, job.num_given, slots.pop(0))

    def _compute(self, embedder: Embedder, inputs: list[tuple[_Input, int]]) -> None:
        started_ns = self._clock_ns()
        chunks = [EmbeddingChunk(one.slot, one.n_done, one.token_ids[one.n_done : one.n_done + n]) for one, n in inputs]
        for one, _ in inputs:
            if one.n_done == 0:
                embedder.clear(one.slot)  # of what an input left there that was not computed to its end
        rows = embedder.compute(chunks)
        step_ns = max(0, self._clock_ns() - started_ns)
        if rows is None or not np.isfinite(rows).all():
            for one, _ in inputs:
                embedder.clear(one.slot)
            for job in {id(one.job): one.job for one, _ in inputs}.values():
                self._finish(job, FinishReason.ERROR, "llama.cpp could not compute it")
            return
        ms_per_row = step_ns / _NS_PER_MS / len(rows)
        if len(rows) >= min(_TILE_ROWS, embedder.n_rows_max):
            self._full_steps_ms_per_row.append(ms_per_row)
            self._measured_ns = self._clock_ns()
        self._ms_per_row += _WEIGHT_OF_LAST_STEP * (max(ms_per_row, 1e-6) - self._ms_per_row)
        first = 0
        for one, n_tokens in inputs:
            one.n_done += n_tokens
            one.job.add_rows(one.index, rows[first : first + n_tokens], embedder.pooling)
            one.job.compute_ns += step_ns * n_tokens // len(rows)
            first += n_tokens
            if one.n_done == len(one.token_ids):
                embedder.clear(one.slot)
                one.job.complete(one.index)
        for job in {id(one.job): one.job for one, _ in inputs}.values():
            if job.is_complete:
                self._finish(job, FinishReason.STOP)
            elif job.is_out_of_time:
                self._finish(job, FinishReason.LENGTH)

    def _finish(self, job: EmbeddingJob, reason: FinishReason, error: str | None = None) -> None:
        del self._jobs[job.request.request_id]
        self._served.leave(job.request.tenant)
        if self._current is not None and self._current.job is job:
            self._current = None
        self._outputs.append(job.output(reason, error))
