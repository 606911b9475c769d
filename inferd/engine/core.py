"""EngineCore: schedule, execute, update. Synchronous and without threads; the tests live here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq

from inferd.engine.batch import ScheduledChunk, build_batch, laid_out, output_rows
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.cost_model import Speed
from inferd.engine.detokenizer import Detokenizer
from inferd.engine.kv.cache import KVCache
from inferd.engine.kv.partitioned import PartitionedKVCache
from inferd.engine.kv.unified import UnifiedKVCache
from inferd.engine.messages import AddRequest, FinishReason, RequestOutput, TrafficClass
from inferd.engine.runner import Batch, Runner
from inferd.engine.sampling import DrawnToken, TokenSampling, Undrawn
from inferd.engine.scheduler import Scheduler
from inferd.engine.sequence import Sequence, SequenceStatus
from inferd.engine.speculation import MAX_DRAFT
from inferd.logprobs import TokenLogprob

_NS_PER_MS = 1_000_000
MAX_STEP_MS = 400.0
MAX_FAILURES = 3
"""Failed decodes in a row after which a sequence is given up."""
_NO_ROOM = 1
"""llama_decode found no cells; nothing was computed."""

logger = logging.getLogger(__name__)


class EngineCore:
    """Continuous batching of many sequences over one runner.

    Args:
        host_cache_bytes: RAM for prefixes that have no stream of their own.
        max_step_ms: how long a step may take while somebody waits for a next token.
        compute_turn: of the device, if other engines compute on it too.
        speculates: computes likely tokens ahead while one sequence runs alone.

    Every request that `add_request` took ends in exactly one terminal output. Outputs gather until `take_outputs`:
    a step that raises loses none of them.
    """

    def __init__(
        self,
        runner: Runner,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        *,
        host_cache_bytes: int = 0,
        max_step_ms: float = MAX_STEP_MS,
        compute_turn: ComputeTurn | None = None,
        speculates: bool = False,
    ) -> None:
        self._compute_turn = compute_turn or ComputeTurn()
        self._runner = runner
        self._sampling = TokenSampling(runner)
        self._clock_ns = clock_ns
        layout = PartitionedKVCache if runner.n_pool_cells is None else UnifiedKVCache
        self._kv_cache: KVCache = layout(runner, host_budget_bytes=host_cache_bytes)
        self._scheduler = Scheduler(
            self._kv_cache,
            n_rows_max=runner.n_rows_max,
            max_step_ms=max_step_ms,
            clock_ns=clock_ns,
            n_draft_max=min(MAX_DRAFT, runner.n_outputs_max - 1) if speculates else 0,
        )
        self._sequences: dict[str, Sequence] = {}
        self._outputs: list[RequestOutput] = []

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    @property
    def has_urgent_work(self) -> bool:
        """Whether some of it is more than batch."""
        batch = TrafficClass.BATCH
        return any(sequence.request.traffic_class is not batch for sequence in self._sequences.values())

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def speed(self) -> Speed:
        """How fast it is with those who run now."""
        running = self._scheduler.running
        cells = sum(sequence.num_computed_tokens for sequence in running)
        return Speed.expected(self._scheduler.cost_model, n_decodes=len(running), cells=cells)

    def add_request(self, request: AddRequest) -> None:
        """Queues a request. What a person could have got wrong was refused before; here it is a precondition."""
        assert request.request_id not in self._sequences, "request ids are unique"
        assert len(request.prompt) + request.max_tokens <= self._kv_cache.cells_per_sequence, "the request fits"
        assert all(0 <= token_id < self._runner.n_vocab for token_id in request.prompt), "token ids are in range"
        matcher = None if request.constraint is None else request.constraint.matcher()
        detokenizer = Detokenizer(request.params.stop)
        sequence = Sequence(request, self._runner.new_sampler(request.params), detokenizer, matcher)
        self._sampling.prepare(sequence)
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)

    def abort(self, request_id: str) -> None:
        """Ends a request; nothing happens if it has just ended by itself."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._finish(sequence, FinishReason.CANCELLED)

    def abort_all(self, error: str) -> None:
        """Ends every request with an error; nobody pays."""
        for sequence in list(self._sequences.values()):
            self._finish(sequence, FinishReason.ERROR, error=error)

    def take_outputs(self) -> list[RequestOutput]:
        """All outputs since the last call; those of one request are in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def step(self) -> None:
        """One turn: at most `n_rows_max` rows."""
        for sequence, drawn in self._sampling.draw_late():
            self._append(sequence, drawn)
        chunks = self._scheduler.schedule()
        if not chunks:
            self._sampling.wait()
            return
        urgency = min(chunk.sequence.request.traffic_class for chunk in chunks)
        with self._compute_turn.take(urgency):
            self._compute(chunks)

    def _compute(self, chunks: list[ScheduledChunk]) -> None:
        """Executes the chunks, samples, and takes both into the books. Waiting for the turn is not compute time."""
        started_ns = self._clock_ns()
        ordered = laid_out(chunks)
        batch, code = self._execute(ordered)
        if code != 0:
            self._recover(chunks, code)
            return
        completing = [chunk for chunk in ordered if chunk.completes]
        rows = output_rows(ordered)
        drawn_tokens = self._sampling.draw([chunk.sequence for chunk in completing], rows)
        step_ns = max(0, self._clock_ns() - started_ns)
        self._scheduler.observe(chunks, step_ns / _NS_PER_MS)
        for chunk in ordered:
            # The rows of a draft are its sequence's, come what may.
            chunk.sequence.advance(chunk.n_tokens, step_ns=step_ns, n_rows=batch.n_rows - len(chunk.draft))
            if self._kv_cache.wants_checkpoints and chunk.sequence.is_at_checkpoint:
                self._kv_cache.checkpoint(chunk.sequence)
        for chunk, row, drawn in zip(completing, rows, drawn_tokens, strict=True):
            self._append(chunk.sequence, drawn)
            if chunk.draft:
                self._verify(chunk, row)
        for chunk in ordered:
            if chunk.sequence.is_out_of_time and chunk.sequence.status is SequenceStatus.RUNNING:
                self._finish(chunk.sequence, FinishReason.LENGTH)

    def check_integrity(self) -> None:
        """Asserts that books and native memory agree; cheap enough for every idle moment and every test."""
        self._kv_cache.check_integrity()
        live = {*self._scheduler.waiting, *self._scheduler.running}
        assert live == set(self._sequences.values()), "every live request is waiting or running"

    def close(self) -> None:
        """Releases the runner; no request is live."""
        assert not self._sequences, "close comes after abort_all"
        self._sampling.close()
        self._runner.close()

    def _execute(self, chunks: Seq[ScheduledChunk]) -> tuple[Batch, int]:
        for chunk in chunks:
            self._kv_cache.check_sequence(chunk.sequence)
        batch = build_batch(chunks)
        return batch, self._runner.execute(batch)

    def _verify(self, chunk: ScheduledChunk, row: int) -> None:
        """Goes on with the rows of the draft, which come after `row`, as long as the token that a row was computed for
        is the one that was sampled. Each token is sampled from the logits behind those before it, by the same sampler,
        as if there were no draft. So a draft decides how many tokens come, never which."""
        sequence = chunk.sequence
        for token_id in chunk.draft:
            is_next = sequence.status is SequenceStatus.RUNNING and sequence.num_uncomputed_tokens == 1
            if not is_next or sequence.token_ids[-1] != token_id:
                break
            sequence.advance(1, step_ns=0, n_rows=1)
            self._scheduler.charge_accepted(sequence)
            row += 1
            (drawn,) = self._sampling.draw([sequence], [row])
            self._append(sequence, drawn)
        if sequence.status is SequenceStatus.RUNNING:
            self._kv_cache.resync(sequence)

    def _append(self, sequence: Sequence, drawn: DrawnToken | Undrawn) -> None:
        if drawn is Undrawn.LATE:
            return None
        if isinstance(drawn, Undrawn):
            reason = FinishReason.CONSTRAINT if drawn is Undrawn.IMPOSSIBLE else FinishReason.ERROR
            return self._finish(sequence, reason, error=drawn.value)
        token_id = drawn.token_id
        sequence.token_ids.append(token_id)
        if self._runner.is_end_of_generation(token_id):
            return self._finish(sequence, FinishReason.STOP, drawn=DrawnToken(token_id))
        text = sequence.detokenizer.push(self._runner.token_to_piece(token_id))
        if sequence.detokenizer.stopped:
            return self._finish(sequence, FinishReason.STOP, text=text, drawn=drawn)
        if sequence.matcher is not None:
            if not sequence.matcher.accept(token_id):
                too_complex = "its grammar has become too complex"
                return self._finish(sequence, FinishReason.CONSTRAINT, text=text, drawn=drawn, error=too_complex)
            if sequence.matcher.is_finished:
                return self._finish(sequence, FinishReason.STOP, text=text, drawn=drawn)
        if sequence.num_completion_tokens == sequence.request.max_tokens:
            return self._finish(sequence, FinishReason.LENGTH, text=text, drawn=drawn)
        self._sampling.prepare(sequence)
        self._put(RequestOutput(sequence.request_id, text, (token_id,), logprobs=_logprobs(drawn)))
        return None

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        *,
        text: str = "",
        drawn: DrawnToken | None = None,
        error: str | None = None,
    ) -> None:
        # After an error its memory is not to be trusted, by nobody.
        self._scheduler.finish(sequence, keep=reason is not FinishReason.ERROR)
        del self._sequences[sequence.request_id]
        self._sampling.forget(sequence)
        sequence.sampler.close()
        output = RequestOutput(
            request_id=sequence.request_id,
            text=text + sequence.detokenizer.flush(),
            token_ids=() if drawn is None else (drawn.token_id,),
            logprobs=_logprobs(drawn),
            finish_reason=reason,
            usage=sequence.usage(),
            compute_ns=sequence.charged_ns,
            error=error,
            stop_string=sequence.detokenizer.stop_string if reason is FinishReason.STOP else None,
        )
        self._put(output)

    def _put(self, output: RequestOutput) -> None:
        """All that a step brings for a request is one output."""
        if self._outputs and self._outputs[-1].request_id == output.request_id:
            output = self._outputs.pop().followed_by(output)
        self._outputs.append(output)

    def _recover(self, chunks: list[ScheduledChunk], code: int) -> None:
        """After a failed decode each sequence goes on from its last good step, or ends with an error once it has
        failed too often."""
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.num_failures += 1
            if sequence.num_failures >= MAX_FAILURES:
                self._finish(sequence, FinishReason.ERROR, error="llama.cpp could not compute it")
            else:
                self._scheduler.recover(sequence)
        if code == _NO_ROOM:
            logger.error("llama.cpp found no room for %d rows", sum(chunk.n_rows for chunk in chunks))
            self._scheduler.shed()


def _logprobs(drawn: DrawnToken | None) -> tuple[TokenLogprob, ...]:
    return () if drawn is None or drawn.logprob is None else (drawn.logprob,)
