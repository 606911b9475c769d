"""Runs completions: hold, generate, settle. Engine and ledger meet here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from inferd.attribution import Attribution
from inferd.deployments.deployment import Deployment
from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.engine.messages import AddRequest, EmbedRequest, FinishReason, TrafficClass
from inferd.errors import GenerationError, InferdError, InsufficientCreditError, OverloadedError
from inferd.ledger.identity.keys import Caller
from inferd.ledger.requests.holds import AlertRefusal, OpenHold
from inferd.ledger.requests.settlement import SettleHold, VoidHold
from inferd.ledger.requests.usage import RecordFree
from inferd.ledger.storage.writer import LedgerWriter
from inferd.limits.ticket import RateLimitTicket, unlimited_ticket
from inferd.money import display_usd
from inferd.price import Price, ServiceTier
from inferd.serving.cache_hints import NO_HINTS, CacheHints
from inferd.serving.choices import Choices, Ending
from inferd.serving.completion import Admission, Completion, Finished
from inferd.serving.endpoints.admission import PreparedPrompt, check_capability, compile_constraint, prepare
from inferd.serving.endpoints.embedding_admission import PreparedInputs, check_compute
from inferd.serving.held_credit import HeldCredit, RunningRequest
from inferd.serving.request_group import RequestGroup
from inferd.serving.request_id import call_id
from inferd.serving.tokenizer_pool import TokenizerPool
from inferd.usage import Usage
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.embeddings import EmbeddingRequest
from inferd.wire.openai.text_completions import TextPrompt

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5.0

Persist = Callable[[Finished], Awaitable[bool]]
"""Called once with a request's end before its cost is known; False: it was not kept, so it costs nothing (R23)."""

_TRAFFIC_CLASSES = {
    ServiceTier.PRIORITY: TrafficClass.PRIORITY,
    ServiceTier.DEFAULT: TrafficClass.DEFAULT,
    ServiceTier.FLEX: TrafficClass.BATCH,
    ServiceTier.BATCH: TrafficClass.BATCH,
}


@dataclass(frozen=True, slots=True)
class _Job:
    """All that stays the same over a request's life. `price` is the snapshot of its admission."""

    completion: Completion
    caller: Caller
    deployment: Deployment
    request: ChatRequest | TextPrompt | EmbeddingRequest
    cache: CacheHints
    tier: ServiceTier
    price: Price | None
    admitted_at_ms: int
    ticket: RateLimitTicket
    group: RequestGroup
    persist: Persist | None

    @property
    def attribution(self) -> Attribution:
        return self.caller.attribution(self.deployment.name, self.tier)

    @property
    def by_time(self) -> bool:
        return self.price is not None and self.price.is_by_time

    @property
    def max_compute_ms(self) -> int | None:
        """Of each choice."""
        return self.deployment.max_compute_ms if self.by_time else None


class Completions:
    """Every request that it accepts ends in one terminal engine output, and every hold is resolved once.

    Args:
        epoch: of this process, as `begin_epoch` gave it.
        clock_ms: wall clock, for the books.
        contact: whom a team that is out of credit asks, if its plan says so.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        *,
        epoch: int,
        clock_ms: Callable[[], int],
        contact: str | None = None,
    ) -> None:
        self._ledger = ledger
        self._contact = contact
        self._epoch = epoch
        self._clock_ms = clock_ms
        self.tokenizers = TokenizerPool()
        self._live: dict[asyncio.Task[None], Completion] = {}
        self._held = HeldCredit()
        self._closed = False

    @property
    def num_live(self) -> int:
        return len(self._live)

    def begin(
        self,
        request_id: str,
        caller: Caller,
        deployment: Deployment,
        request: ChatRequest | TextPrompt | EmbeddingRequest,
        cache: CacheHints = NO_HINTS,
        ticket: RateLimitTicket | None = None,
        group: RequestGroup | None = None,
        *,
        tier: ServiceTier | None = None,
        persist: Persist | None = None,
    ) -> Completion:
        """Takes a request on; wait for `Completion.admitted`. Raises OverloadedError while the server stops or
        the model is not ready, InvalidRequestError if it does not offer the service tier or is not for such requests.

        Args:
            ticket: of a caller that has entered; from here on the request gives back what it took. None: it counts
                in no limit.
            group: requests admitted and billed all or nothing; None for a single request.
            tier: instead of the one that the request names.
            persist: called with the result before settlement; False voids the hold (BILLING R23).
        """
        tier, ticket = tier or request.tier, ticket or unlimited_ticket()
        deployment.check_tier(tier)
        if self._closed:
            raise OverloadedError("The server is shutting down.", retry_after_s=RETRY_AFTER_S)
        deployment.check_ready()
        check_capability(request, deployment)
        completion = Completion(request_id)
        now_ms = self._clock_ms()
        price = deployment.price_at(now_ms, tier)
        group = group or RequestGroup()
        job = _Job(completion, caller, deployment, request, cache, tier, price, now_ms, ticket, group, persist)
        task = asyncio.create_task(self._run(job), name=f"completion {request_id}")
        self._live[task] = completion
        task.add_done_callback(lambda task: self._live.pop(task))
        return completion

    def close(self) -> None:
        """Takes no more requests; those under way go on."""
        self._closed = True

    def cut_off(self) -> None:
        """Takes no more requests, and ends those under way unbilled: a stop is the server's doing (BILLING R16). Comes
        before the HTTP server ends its connections, which would look as if the clients had hung up; they are voided as
        engines give them back."""
        self._closed = True
        error = OverloadedError(
            "The server is shutting down: your request was cut off, and you were not billed.",
            retry_after_s=RETRY_AFTER_S,
        )
        for completion in self._live.values():
            completion.cut(error)

    @property
    def is_closed(self) -> bool:
        return self._closed

    def check_space(self) -> None:
        """Raises OverloadedError while the disk is nearly full: then nothing new is taken on."""
        self._ledger.check_space()

    async def wait_idle(self, timeout_s: float | None) -> bool:
        """Waits until every request has ended; False if the time was not enough."""
        if not self._live:
            return True
        _, pending = await asyncio.wait(self._live, timeout=timeout_s)
        return not pending

    async def _run(self, job: _Job) -> None:
        completion = job.completion
        try:
            request, deployment, most = job.request, job.deployment, job.ticket.max_output_tokens
            ends = (completion.cancelled, job.group.refusal)
            prompt = await self.tokenizers.run_until(
                job.caller.team, lambda check: prepare(request, deployment, most, check=check), *ends
            )
            is_batch = _TRAFFIC_CLASSES[job.tier] is TrafficClass.BATCH
            replica, team = job.deployment.replica, job.caller.team
            constraint = await compile_constraint(job.request, prompt, replica, team, is_batch=is_batch)
            if completion.cut_by is not None:
                raise completion.cut_by
            ms_per_token = replica.speed.embedding_ms_per_token
            if isinstance(prompt, PreparedInputs) and job.max_compute_ms is not None and ms_per_token is not None:
                check_compute(prompt, job.max_compute_ms, ms_per_token)
            job.ticket.reserve(prompt.num_tokens, prompt.max_tokens, n_choices=job.request.n_choices)
            await self._hold(job, prompt)
        except Exception as error:  # noqa: BLE001 - handed to the one who waits in Completion.admitted
            job.ticket.refuse(error)
            job.group.refused(error)
            completion.refuse(error)
            return
        # From here on there is a hold, and whatever happens this task resolves it.
        try:
            await self._generate(job, prompt, constraint)
        finally:
            self._held.remove(completion.request_id)

    async def _generate(
        self, job: _Job, prompt: PreparedPrompt | PreparedInputs, constraint: CompiledConstraint | None
    ) -> None:
        """From the hold to its end."""
        completion = job.completion
        choices = Choices(job.deployment.replica, completion, job.ticket.generated)
        try:
            await job.group.held()
            choices.submit(self._engine_request(job, prompt, constraint), job.request.n_choices)
            await job.group.taken()
        except Exception as error:  # noqa: BLE001 - handed on as above, once the hold is gone
            job.group.refused(error)
            try:
                await choices.withdraw()
                await self._resolve(job, "failed", Usage())
            finally:
                job.ticket.refuse(error)
                completion.refuse(error)
            return
        completion.admit(Admission(prompt.clamped_max_tokens, prompt.in_reasoning, prompt.num_tokens))
        await self._end(job, await choices.end())

    async def _hold(self, job: _Job, prompt: PreparedPrompt | PreparedInputs) -> None:
        """Free deployments need no credit and take no hold (BILLING R7), but room on the disk for their usage row."""
        if job.price is None:
            self._ledger.check_space()
            return
        n_choices, max_compute_ms = job.request.n_choices, job.max_compute_ms
        hold = OpenHold(
            request_id=job.completion.request_id,
            attribution=job.attribution,
            price=job.price,
            prompt_tokens=prompt.num_tokens,
            max_completion_tokens=n_choices * prompt.max_tokens,
            epoch=self._epoch,
            admitted_at_ms=job.admitted_at_ms,
            contact=self._contact,
            max_compute_ms=None if max_compute_ms is None else n_choices * max_compute_ms,
            n_choices=n_choices,
        )
        try:
            await self._ledger.execute(hold)
        except InsufficientCreditError as refusal:
            if refusal.is_for_good:
                with suppress(OverloadedError):  # the next refusal alerts as well
                    self._ledger.submit(AlertRefusal(hold))
            if refusal.retry_after_s is not None:
                refusal.retry_after_s = self._held.retry_after_s(refusal.held_nanousd)
            raise
        self._held.add(
            hold, RunningRequest(job.ticket, job.deployment.replica, prompt.num_tokens, prompt.max_tokens, n_choices)
        )

    @staticmethod
    def _engine_request(
        job: _Job, prompt: PreparedPrompt | PreparedInputs, constraint: CompiledConstraint | None
    ) -> AddRequest | EmbedRequest:
        if isinstance(prompt, PreparedInputs):
            return EmbedRequest(
                job.completion.request_id,
                prompt.inputs,
                tenant=job.caller.team,
                traffic_class=_TRAFFIC_CLASSES[job.tier],
                max_compute_ms=job.max_compute_ms,
            )
        scope = job.deployment.cache_scope(job.caller.team, job.cache.isolation_key)
        return AddRequest(
            request_id=job.completion.request_id,
            prompt=prompt.token_ids,
            params=prompt.params,
            max_tokens=prompt.max_tokens,
            tenant=job.caller.team,
            cache_scope=scope,
            session=job.cache.session,
            traffic_class=_TRAFFIC_CLASSES[job.tier],
            max_compute_ms=job.max_compute_ms,
            constraint=constraint,
            group=call_id(job.completion.request_id),
        )

    async def _end(self, job: _Job, end: Ending) -> None:
        """Settles or voids (BILLING R16), and only then lets the reader see the end."""
        usage, reason = end.usage, end.finish_reason
        job.ticket.settle(usage)
        has_failed = job.completion.cut_by is not None or reason is FinishReason.ERROR
        try:
            have_ended = await job.group.ended(job.completion, failed=has_failed)
            if not (job.completion.begin_settlement() and have_ended):
                event: Finished | InferdError = self._failure(job.completion, end)
                await self._resolve(job, "failed", Usage())
            elif job.persist is not None and not await job.persist(_finished(job, end, usage, 0)):
                await self._resolve(job, "cancelled", Usage())
                event = replace(_finished(job, end, Usage(), 0), finish_reasons=(FinishReason.CANCELLED,))
            else:
                status: Literal["cancelled", "completed"] = (
                    "cancelled" if reason is FinishReason.CANCELLED else "completed"
                )
                cost_nanousd = await self._resolve(job, status, usage, reason)
                event = _finished(job, end, usage, cost_nanousd)
                self._log(job, event)
        except Exception:  # the reader must not wait for ever
            # Not in the books, so not to be seen as complete. Its hold is voided by the next start.
            logger.exception("request %s could not be settled", job.completion.request_id)
            event = GenerationError("The server could not record your request. You were not billed.")
        job.completion.put(event)

    @staticmethod
    def _failure(completion: Completion, end: Ending) -> InferdError:
        """Return the error for the reader of a request that the server has ended."""
        if completion.cut_by is not None:
            logger.info("request %s was cut off", completion.request_id)
            return completion.cut_by
        why = end.error or "another request that began together with it did"
        logger.error("request %s failed: %s", completion.request_id, why)
        return GenerationError("The server had an error while processing your request. You were not billed.")

    def _log(self, job: _Job, finished: Finished) -> None:
        """One line a request; never a word of what was asked or answered."""
        usage = finished.usage
        logger.info(
            "%s %s model=%s %s: %d+%d tokens, %s, %d ms",
            job.completion.request_id,
            job.caller.log_fields(),
            job.deployment.name,
            finished.finish_reason.value,
            usage.prompt_tokens,
            usage.completion_tokens,
            display_usd(finished.cost_nanousd),
            self._clock_ms() - job.admitted_at_ms,
        )

    async def _resolve(
        self,
        job: _Job,
        status: Literal["completed", "cancelled", "failed"],
        usage: Usage,
        reason: FinishReason | None = None,
    ) -> int:
        """Commits the end of a request; returns its cost in nano-USD."""
        request_id, now_ms = job.completion.request_id, self._clock_ms()
        finish_reason = None if reason is None else reason.value
        if job.price is None:
            await self._ledger.execute(self._free_record(job, status, usage, now_ms, finish_reason))
            return 0
        if status == "failed" or usage.total_tokens == 0:
            await self._ledger.execute(VoidHold(request_id, "failed" if status == "failed" else "cancelled", now_ms))
            return 0
        settle = SettleHold(request_id, usage, status, now_ms, finish_reason)
        settlement = await self._ledger.execute(settle)
        return settlement.cost_nanousd

    @staticmethod
    def _free_record(
        job: _Job,
        status: Literal["completed", "cancelled", "failed"],
        usage: Usage,
        now_ms: int,
        finish_reason: str | None,
    ) -> RecordFree:
        return RecordFree(
            request_id=job.completion.request_id,
            attribution=job.attribution,
            usage=usage,
            status=status,
            finish_reason=finish_reason,
            admitted_at_ms=job.admitted_at_ms,
            finished_at_ms=now_ms,
        )


def _finished(job: _Job, end: Ending, usage: Usage, cost_nanousd: int) -> Finished:
    return Finished(
        end.finish_reasons,
        usage,
        cost_nanousd,
        job.by_time,
        end.first_token_ns,
        time.monotonic_ns(),
        end.stop_string,
        end.embeddings,
    )
