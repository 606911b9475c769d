"""EngineCore: schedule, execute, update. Synchronous and without threads, for tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from inferd.engine.batch import ScheduledChunk, StepPlan, build_batch, first_rows, laid_out, output_rows
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.cost_model import Speed
from inferd.engine.detokenizer import Detokenizer
from inferd.engine.kv.cache import KVCache
from inferd.engine.kv.partitioned import PartitionedKVCache
from inferd.engine.kv.unified import UnifiedKVCache
from inferd.engine.logits.probabilities import score_prompt
from inferd.engine.logits.sampling import NotSampled, SampledToken, TokenSampling
from inferd.engine.messages import AddRequest, FinishReason, RequestOutput
from inferd.engine.runner import Runner
from inferd.engine.scheduler import Scheduler
from inferd.engine.sequence import Sequence, SequenceStatus
from inferd.engine.speculation import MAX_DRAFT
from inferd.logprobs import PromptLogprob, TokenLogprob
from inferd.usage import NS_PER_MS

MAX_STEP_MS = 400.0
MAX_FAILURES = 3
"""Failed decodes in a row after which a sequence ends with an error."""
_GOOD = 0
_NO_CELLS = 1
"""Codes of llama_decode: the rows were computed; there were no free cells, and no row was computed."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """Log-probabilities of prompt tokens that a chunk brought, None if the model gave none; and the time of reading
    them."""

    chunk: ScheduledChunk
    tokens: tuple[PromptLogprob, ...] | None
    scoring_ns: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of an executed step.

    Attributes:
        code: of llama_decode.
        step_ns: duration of computing, sampling and scoring; waiting for the compute turn does not count.
        scored: the chunks that brought log-probabilities of their prompts.
        rows: each chunk that samples, with the row of its last known token.
        tokens: the token sampled from each of these rows.
    """

    code: int = _GOOD
    step_ns: int = 0
    scored: Seq[ScoredChunk] = ()
    rows: Seq[tuple[ScheduledChunk, int]] = ()
    tokens: Seq[SampledToken | NotSampled] = ()


class EngineCore:
    """Continuous batching of many sequences over one runner; see `Core`.

    Outputs accumulate until `take_outputs`, so that a step that raises loses none of them.

    Args:
        host_cache_bytes: host RAM for cached prefixes that are evicted from native memory.
        max_step_ms: maximum expected duration of a step while a sequence decodes.
        compute_turn: of the device, if other engines compute on it too.
        speculates: compute likely tokens ahead while one sequence runs alone.
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
        layout = PartitionedKVCache if runner.num_pool_cells is None else UnifiedKVCache
        self._kv_cache: KVCache = layout(runner, host_budget_bytes=host_cache_bytes)
        self._scheduler = Scheduler(
            runner,
            self._kv_cache,
            max_step_ms=max_step_ms,
            clock_ns=clock_ns,
            max_draft=min(MAX_DRAFT, runner.max_outputs - 1) if speculates else 0,
        )
        self._sequences: dict[str, Sequence] = {}
        self._outputs: list[RequestOutput] = []

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    @property
    def has_urgent_work(self) -> bool:
        return any(not sequence.is_batch for sequence in self._sequences.values())

    @property
    def speed(self) -> Speed:
        running = self._scheduler.running
        cells = sum(sequence.num_computed_tokens for sequence in running)
        return Speed.expected(self._scheduler.cost_model, num_decodes=len(running), cells=cells)

    def add_request(self, request: AddRequest) -> None:
        assert request.request_id not in self._sequences, "request ids are unique"
        assert request.max_total_tokens <= self._runner.cells_per_sequence, "the request fits"
        assert all(0 <= token_id < self._runner.vocab_size for token_id in request.prompt), "token ids are in range"
        matcher = None if request.constraint is None else request.constraint.matcher()
        detokenizer = Detokenizer(request.params.stop, includes_stop=request.params.includes_stop)
        sampler = self._runner.new_sampler(request.params, request.prompt)
        sequence = Sequence(request, sampler, detokenizer, matcher)
        self._sampling.prepare(sequence)
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)

    def abort(self, request_id: str) -> None:
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._finish(sequence, FinishReason.CANCELLED)

    def abort_all(self, error: str) -> None:
        for sequence in list(self._sequences.values()):
            self._finish(sequence, FinishReason.ERROR, error=error)

    def take_outputs(self) -> list[RequestOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def step(self) -> None:
        plan = self._schedule()
        result = self._execute(plan)
        self._update(plan, result)

    def check_integrity(self) -> None:
        """Assert that accounting and native memory agree."""
        self._kv_cache.check_integrity()
        live = {*self._scheduler.waiting, *self._scheduler.running}
        assert live == set(self._sequences.values()), "every live request is waiting or running"

    def close(self) -> None:
        assert not self._sequences, "close comes after abort_all"
        self._sampling.close()
        self._runner.close()

    def _schedule(self) -> StepPlan:
        """Append tokens whose masks were late in earlier steps, and plan the next step."""
        for sequence, sampled in self._sampling.sample_late():
            self._append(sequence, sampled)
        return self._scheduler.schedule()

    def _execute(self, plan: StepPlan) -> StepResult:
        """Compute the planned rows and sample from them; without rows, wait briefly for a late mask."""
        if not plan.chunks:
            self._sampling.wait()
            return StepResult()
        with self._compute_turn.take(plan.urgency):
            started_ns = self._clock_ns()
            chunks = laid_out(plan.chunks)
            code = self._runner.execute(build_batch(chunks))
            if code != _GOOD:
                return StepResult(code)
            # Before a mask is written over the logits of the last rows.
            scored = self._score(chunks)
            rows = output_rows(chunks)
            tokens = self._sampling.sample((chunk.sequence, row) for chunk, row in rows)
            step_ns = max(0, self._clock_ns() - started_ns)
        return StepResult(code, step_ns, scored, rows, tokens)

    def _score(self, chunks: Seq[ScheduledChunk]) -> list[ScoredChunk]:
        """Return the log-probabilities of prompts that the step brought."""
        scored: list[ScoredChunk] = []
        for chunk, row in first_rows(chunks):
            if chunk.sequence.is_to_be_scored:
                started_ns = self._clock_ns()
                tokens = score_prompt(self._runner, chunk, row)
                scored.append(ScoredChunk(chunk, tokens, max(0, self._clock_ns() - started_ns)))
        return scored

    def _update(self, plan: StepPlan, result: StepResult) -> None:
        """Advance the sequences, append the sampled tokens, and end the requests that are complete."""
        if result.code != _GOOD:
            self._recover(plan, result.code)
            return
        if not plan.chunks:
            return
        self._scheduler.observe(plan, result.step_ns / NS_PER_MS)
        num_rows = sum(chunk.num_rows for chunk in plan.chunks)
        shared_ns = max(0, result.step_ns - sum(scored.scoring_ns for scored in result.scored))
        for chunk in plan.chunks:
            # The rows of a draft are charged to its sequence, accepted or not.
            chunk.sequence.advance(chunk.num_tokens, step_ns=shared_ns, num_rows=num_rows - len(chunk.draft))
            self._kv_cache.checkpoint(chunk.sequence)
        for scored in result.scored:
            self._put_scores(scored)
        for (chunk, row), token in zip(result.rows, result.tokens, strict=True):
            if chunk.sequence.status is SequenceStatus.RUNNING:
                self._append(chunk.sequence, token)
            if chunk.draft:
                self._verify(chunk, row)
        for sequence in (chunk.sequence for chunk in plan.chunks):
            is_computed = sequence.num_uncomputed_tokens == sequence.num_tokens_to_come == 0
            if (sequence.is_out_of_time or is_computed) and sequence.status is SequenceStatus.RUNNING:
                self._finish(sequence, FinishReason.LENGTH)

    def _put_scores(self, scored: ScoredChunk) -> None:
        """Put out log-probabilities of a prompt, or end its request if the model gave none."""
        sequence, tokens = scored.chunk.sequence, scored.tokens
        if tokens is None:
            return self._finish(sequence, FinishReason.ERROR, error=NotSampled.BROKEN.value)
        sequence.charge_scoring(len(tokens), scored.scoring_ns)
        self._put(RequestOutput(sequence.request_id, prompt_logprobs=tokens))
        return None

    def _recover(self, plan: StepPlan, code: int) -> None:
        """After a failed decode, bring each sequence back to its last good step, or end it with an error if it has
        failed too often."""
        for chunk in plan.chunks:
            sequence = chunk.sequence
            sequence.num_failures += 1
            if sequence.num_failures >= MAX_FAILURES:
                self._finish(sequence, FinishReason.ERROR, error="llama.cpp could not compute it")
            else:
                self._scheduler.recover(sequence)
        if code == _NO_CELLS:
            logger.error("llama.cpp found no room for %d rows", sum(chunk.num_rows for chunk in plan.chunks))
            self._scheduler.recover_cells()

    def _verify(self, chunk: ScheduledChunk, row: int) -> None:
        """Accept the tokens of a draft, whose rows come after `row`, as long as each is the one that was sampled.

        Each token is sampled from the logits behind those before it, by the same sampler, as if there were no draft. So
        a draft decides how many tokens come, never which.
        """
        sequence = chunk.sequence
        for token_id in chunk.draft:
            is_next = sequence.status is SequenceStatus.RUNNING and sequence.num_uncomputed_tokens == 1
            if not is_next or sequence.token_ids[-1] != token_id:
                break
            sequence.advance(1, step_ns=0, num_rows=1)
            self._scheduler.charge_accepted(sequence)
            row += 1
            (sampled,) = self._sampling.sample([(sequence, row)])
            self._append(sequence, sampled)
        if sequence.status is SequenceStatus.RUNNING:
            self._scheduler.recover(sequence)

    def _append(self, sequence: Sequence, sampled: SampledToken | NotSampled) -> None:
        """Append a token, put out its text, and end the request if the token ends it."""
        if sampled is NotSampled.LATE:
            return None
        if isinstance(sampled, NotSampled):
            reason = FinishReason.CONSTRAINT if sampled is NotSampled.IMPOSSIBLE else FinishReason.ERROR
            return self._finish(sequence, reason, error=sampled.value)
        token_id = sampled.token_id
        sequence.token_ids.append(token_id)
        params, may_stop = sequence.params, sequence.may_stop
        is_stop_token = may_stop and token_id in params.stop_token_ids
        if self._runner.is_end_of_generation(token_id) or (is_stop_token and not params.includes_stop):
            end = SampledToken(token_id)
            return self._finish(sequence, FinishReason.STOP, sampled=end, end_logprob=sampled.logprob)
        text = sequence.detokenizer.push(self._runner.token_to_piece(token_id), may_stop=may_stop)
        if sequence.detokenizer.stopped or is_stop_token:
            return self._finish(sequence, FinishReason.STOP, text=text, sampled=sampled)
        if sequence.matcher is not None:
            if not sequence.matcher.accept(token_id):
                too_complex = "its grammar has become too complex"
                return self._finish(sequence, FinishReason.CONSTRAINT, text=text, sampled=sampled, error=too_complex)
            if sequence.matcher.is_finished:
                return self._finish(sequence, FinishReason.STOP, text=text, sampled=sampled)
        if sequence.num_completion_tokens == sequence.request.max_tokens:
            return self._finish(sequence, FinishReason.LENGTH, text=text, sampled=sampled)
        self._sampling.prepare(sequence)
        self._put(RequestOutput(sequence.request_id, text, (token_id,), logprobs=_logprobs(sampled)))
        return None

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        *,
        text: str = "",
        sampled: SampledToken | None = None,
        end_logprob: TokenLogprob | None = None,
        error: str | None = None,
    ) -> None:
        """End a request with its terminal output."""
        # KV memory may be corrupt after an error; do not cache it.
        self._scheduler.finish(sequence, keep=reason is not FinishReason.ERROR)
        del self._sequences[sequence.request_id]
        self._sampling.forget(sequence)
        sequence.sampler.close()
        output = RequestOutput(
            request_id=sequence.request_id,
            text=text + sequence.detokenizer.flush(),
            token_ids=() if sampled is None else (sampled.token_id,),
            logprobs=_logprobs(sampled),
            end_logprob=end_logprob,
            finish_reason=reason,
            usage=sequence.usage(),
            compute_ns=sequence.charged_ns,
            waited_ns=sequence.waited_ns,
            error=error,
            stop_string=sequence.detokenizer.stop_string if reason is FinishReason.STOP else None,
        )
        self._put(output)

    def _put(self, output: RequestOutput) -> None:
        """Add an output; several outputs of a request in a row become one."""
        if self._outputs and self._outputs[-1].request_id == output.request_id:
            output = self._outputs.pop().followed_by(output)
        self._outputs.append(output)


def _logprobs(sampled: SampledToken | None) -> tuple[TokenLogprob, ...]:
    return () if sampled is None or sampled.logprob is None else (sampled.logprob,)
