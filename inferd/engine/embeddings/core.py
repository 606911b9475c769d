"""EmbeddingCore: embedding requests, in steps of bounded size over the inputs of many. Synchronous, like EngineCore."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.cost_model import Speed
from inferd.engine.embeddings.embedder import Embedder, EmbeddingChunk
from inferd.engine.embeddings.pooling import Pool, Pooling, Rows
from inferd.engine.fairness import FairShare
from inferd.engine.messages import EmbedRequest, FinishReason, RequestOutput, TrafficClass
from inferd.errors import ConfigError
from inferd.usage import NS_PER_MS, Usage, rounded_ms

_MAX_OVERSHOOT = 2
"""Factor by which a request may exceed its compute limit before it ends: the limit is based on a rate that was measured
before, which is a rough estimate beside other load."""
_TILE_ROWS = 64
"""Minimum rows of a step beside decodes: fewer take as long on a CPU."""
_WEIGHT_OF_LAST_STEP = 0.2
_NUM_STEPS_TO_MEASURE = 8
_MEASURED_FOR_NS = 60_000_000_000

logger = logging.getLogger(__name__)


class EmbeddingJob:
    """One embedding request, from its first input to its last vector.

    Attributes:
        num_given: inputs that were given to the embedder; the last of them may be incomplete.
        compute_ns: this request's share of the time of the steps.
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
        return limit_ms is not None and self.compute_ns > _MAX_OVERSHOOT * limit_ms * NS_PER_MS

    def add_rows(self, index: int, rows: Rows, pooling: Pooling, num_tokens: int) -> None:
        """Add the next rows of input `index`, which are those of `num_tokens` tokens."""
        self._num_tokens += num_tokens
        self._pools.setdefault(index, Pool(pooling)).add(rows)

    def complete(self, index: int) -> None:
        """Record that input `index` has all of its rows."""
        assert index == len(self._vectors), "inputs are completed in order"
        self._vectors.append(self._pools.pop(index).vector())

    def check_integrity(self) -> None:
        """Assert that inputs are given and completed in order."""
        assert len(self._vectors) <= self.num_given <= len(self.request.inputs), "only given inputs are completed"

    def output(self, reason: FinishReason, error: str | None = None) -> RequestOutput:
        """Return the terminal output; its usage is what was computed."""
        return RequestOutput(
            self.request.request_id,
            finish_reason=reason,
            usage=Usage(prompt_tokens=self._num_tokens, compute_ms=rounded_ms(self._charged_ns)),
            compute_ns=self._charged_ns,
            error=error,
            embeddings=np.stack(self._vectors) if reason is FinishReason.STOP else None,
        )

    @property
    def _charged_ns(self) -> int:
        """Time beyond the limit is not charged (BILLING R14)."""
        limit_ms = self.request.max_compute_ms
        return self.compute_ns if limit_ms is None else min(self.compute_ns, limit_ms * NS_PER_MS)


@dataclass(slots=True)
class _Input:
    """An input under way. `num_done` of its tokens are in the memory of its slot."""

    job: EmbeddingJob
    index: int
    slot: int
    num_done: int = 0

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.job.request.inputs[self.index]


class EmbeddingCore:
    """Embedding of inputs, in order of class, then of the tenant that was served least; see `Core`.

    Args:
        make_embedder: called at the first request, on the thread that steps; raises ConfigError.
        max_step_ms: maximum expected duration of a step beside decodes.
        compute_turn: of the device.
        is_alone: whether the model has no other work; then a step may be as large as the embedder takes.
    """

    def __init__(
        self,
        make_embedder: Callable[[], Embedder],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        *,
        max_step_ms: float,
        compute_turn: ComputeTurn | None = None,
        is_alone: Callable[[], bool] = lambda: True,
    ) -> None:
        self._make_embedder = make_embedder
        self._embedder: Embedder | None = None
        self._clock_ns = clock_ns
        self._max_step_ms = max_step_ms
        self._compute_turn = compute_turn or ComputeTurn()
        self._is_alone = is_alone
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
        return any(job.request.traffic_class is not TrafficClass.BATCH for job in self._jobs.values())

    @property
    def speed(self) -> Speed:
        """Speed of the last steps; of a model without text, the only rate there is."""
        tokens_per_s = 1000.0 / self._ms_per_row
        return Speed(tokens_per_s, tokens_per_s, self._ms_per_token)

    @property
    def _ms_per_token(self) -> float | None:
        """Compute time per token of the fastest of the last steps of a tile or more; None without one in the last
        minute. The fastest, because requests are refused by it, and a step that was held up predicts little."""
        if self._clock_ns() - self._measured_ns > _MEASURED_FOR_NS:
            return None
        return min(self._full_steps_ms_per_row, default=None)

    def add_request(self, request: EmbedRequest) -> None:
        assert request.request_id not in self._jobs, "request ids are unique"
        self._served.enter(request.tenant)
        self._jobs[request.request_id] = EmbeddingJob(request)

    def abort(self, request_id: str) -> None:
        if (job := self._jobs.get(request_id)) is not None:
            self._finish(job, FinishReason.CANCELLED)

    def abort_all(self, error: str) -> None:
        for job in list(self._jobs.values()):
            self._finish(job, FinishReason.ERROR, error)

    def take_outputs(self) -> list[RequestOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def step(self) -> None:
        try:
            embedder = self.load()
        except ConfigError as error:
            logger.error("no embeddings: %s", error)
            self.abort_all(str(error))
            return
        inputs = self._choose(embedder, self._row_budget(embedder))
        urgency = min(one.job.request.traffic_class for one, _ in inputs)
        with self._compute_turn.take(urgency):
            self._compute(embedder, inputs)

    def load(self) -> Embedder:
        """Return the embedder, made at the first call. Raises ConfigError."""
        if self._embedder is None:
            self._embedder = self._make_embedder()
        return self._embedder

    def check_integrity(self) -> None:
        """Assert that the input under way belongs to a live request, and that jobs are consistent."""
        for job in self._jobs.values():
            job.check_integrity()
        assert self._current is None or self._current.job in self._jobs.values(), "a live request is under way"

    def close(self) -> None:
        assert not self._jobs, "close comes after abort_all"
        if self._embedder is not None:
            self._embedder.close()

    def _row_budget(self, embedder: Embedder) -> int:
        if self._is_alone():
            return embedder.max_rows
        num_tiles = max(1, int(self._max_step_ms / self._ms_per_row) // _TILE_ROWS)
        return min(embedder.max_rows, num_tiles * _TILE_ROWS)

    def _choose(self, embedder: Embedder, max_rows: int) -> list[tuple[_Input, int]]:
        """Return the inputs of the next step, each with the number of its tokens to compute. The input under way comes
        first. If inputs have to come whole, the first of a step may exceed the budget."""
        chosen: list[tuple[_Input, int]] = []
        slots = list(range(embedder.num_slots))
        if self._current is not None:
            slots.remove(self._current.slot)
        while max_rows > 0:
            one = self._current or self._next_input(slots)
            if one is None:
                break
            self._current = one
            left = len(one.token_ids) - one.num_done
            if left > max_rows and not embedder.is_causal and chosen:
                break
            num_tokens = min(left, max_rows) if embedder.is_causal else left
            chosen.append((one, num_tokens))
            one.job.num_given = max(one.job.num_given, one.index + 1)
            self._served.charge(one.job.request.tenant, prompt_tokens=num_tokens)
            max_rows -= num_tokens
            if num_tokens < left:
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
        """Compute the inputs' next tokens, and end the requests that are complete, failed or out of time."""
        started_ns = self._clock_ns()
        chunks = [
            EmbeddingChunk(one.slot, one.num_done, one.token_ids[one.num_done : one.num_done + num_tokens])
            for one, num_tokens in inputs
        ]
        for one, _ in inputs:
            if one.num_done == 0:
                embedder.clear(one.slot)  # an aborted input may have left tokens there
        rows = embedder.compute(chunks)
        step_ns = max(0, self._clock_ns() - started_ns)
        jobs = list({id(one.job): one.job for one, _ in inputs}.values())
        if rows is None or not np.isfinite(rows).all():
            for one, _ in inputs:
                embedder.clear(one.slot)
            for job in jobs:
                self._finish(job, FinishReason.ERROR, "llama.cpp could not compute it")
            return
        step_tokens = sum(num_tokens for _, num_tokens in inputs)
        self._observe(step_ns / NS_PER_MS / step_tokens, is_full=step_tokens >= min(_TILE_ROWS, embedder.max_rows))
        first = 0
        for one, num_tokens in inputs:
            num_rows = 1 if embedder.pooling is Pooling.RANK else num_tokens
            one.num_done += num_tokens
            one.job.add_rows(one.index, rows[first : first + num_rows], embedder.pooling, num_tokens)
            one.job.compute_ns += step_ns * num_tokens // step_tokens
            first += num_rows
            if one.num_done == len(one.token_ids):
                embedder.clear(one.slot)
                one.job.complete(one.index)
        for job in jobs:
            if job.is_complete:
                self._finish(job, FinishReason.STOP)
            elif job.is_out_of_time:
                self._finish(job, FinishReason.LENGTH)

    def _observe(self, ms_per_row: float, *, is_full: bool) -> None:
        if is_full:
            self._full_steps_ms_per_row.append(ms_per_row)
            self._measured_ns = self._clock_ns()
        self._ms_per_row += _WEIGHT_OF_LAST_STEP * (max(ms_per_row, 1e-6) - self._ms_per_row)

    def _finish(self, job: EmbeddingJob, reason: FinishReason, error: str | None = None) -> None:
        del self._jobs[job.request.request_id]
        self._served.leave(job.request.tenant)
        if self._current is not None and self._current.job is job:
            self._current = None
        self._outputs.append(job.output(reason, error))
