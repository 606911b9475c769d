"""One request from its admission to its end: all that it has taken, and the two ways to give that back."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from inferd.engine.messages import AddRequest, EmbedRequest, FinishReason, TrafficClass
from inferd.errors import GenerationError, InferdError
from inferd.ledger.requests import OpenHold, RecordFree, SettleHold, VoidHold
from inferd.limits.ticket import RateLimitTicket
from inferd.money import display_usd
from inferd.price import ServiceTier
from inferd.serving.choices import Choices
from inferd.serving.completion import Finished
from inferd.serving.endpoints.endpoint import Call, Prepared, RequestLabels
from inferd.serving.holds import Holds, RunningRequest
from inferd.serving.request_group import RequestGroup
from inferd.usage import Usage

logger = logging.getLogger(__name__)

Status = Literal["completed", "cancelled", "failed"]

_TRAFFIC_CLASSES = {
    ServiceTier.PRIORITY: TrafficClass.PRIORITY,
    ServiceTier.DEFAULT: TrafficClass.DEFAULT,
    ServiceTier.FLEX: TrafficClass.BATCH,
    ServiceTier.BATCH: TrafficClass.BATCH,
}


class RequestContext:
    """Owner of a request's rate-limit ticket, hold and sequences. Ends with `finish` or `fail`, once.

    Args:
        number: position of the request in its call.
        ticket: of a caller that has entered.

    Attributes:
        group: requests that are admitted and billed with it, all or nothing.
        choices: its sequences in the engine.
    """

    def __init__(self, call: Call, number: int, ticket: RateLimitTicket, group: RequestGroup, holds: Holds) -> None:
        self.call = call
        self.number = number
        self.request_id = f"{call.request_id}-{number}" if number else call.request_id
        self.ticket = ticket
        self.group = group
        self.completion = group.completion
        self.choices = Choices(call.deployment.replica, group.completion, number, ticket.generated)
        self._attribution = call.caller.attribution(call.deployment.name, call.tier)
        self._holds = holds
        self._is_held = False
        # Whether there is a row in `holds`; set with `_is_held`.
        self._has_hold = False
        self._is_compute_bounded = False
        self._admitted_at_ms = holds.clock_ms()
        self._price = call.deployment.price_at(self._admitted_at_ms, call.tier)

    @property
    def _by_time(self) -> bool:
        return self._price is not None and self._price.is_by_time

    @property
    def _max_compute_ms(self) -> int | None:
        """Compute that each choice may have by the price; None: any."""
        return self.call.deployment.max_compute_ms if self._by_time else None

    @property
    def labels(self) -> RequestLabels:
        team = self.call.caller.team
        return RequestLabels(
            request_id=self.request_id,
            tenant=team,
            cache_scope=self.call.deployment.cache_scope(team, self.call.cache.isolation_key),
            session=self.call.cache.session_of(team),
            traffic_class=_TRAFFIC_CLASSES[self.call.tier],
            max_compute_ms=self._max_compute_ms,
            group=self.call.request_id,
        )

    async def hold(self, prepared: Prepared) -> None:
        """Reserve tokens of the rate limits, and hold the worst case of the cost (BILLING R4).

        A request to a free deployment needs no credit. It takes a hold only if its team has a budget of tokens or of
        compute time (BILLING R7), else it needs only room on the disk for its usage row. Raises RateLimitError,
        InsufficientCreditError, OverloadedError.
        """
        num_choices, max_tokens = prepared.num_choices, prepared.max_tokens
        self.ticket.reserve(prepared.prompt_tokens, max_tokens, n_choices=num_choices)
        if self._price is None and not self.call.caller.has_usage_budgets:
            self._holds.check_space()
        else:
            max_compute_ms = self.call.deployment.max_compute_ms
            hold = OpenHold(
                request_id=self.request_id,
                attribution=self._attribution,
                price=self._price,
                prompt_tokens=prepared.prompt_tokens,
                max_completion_tokens=num_choices * max_tokens,
                epoch=self._holds.epoch,
                admitted_at_ms=self._admitted_at_ms,
                contact=self._holds.contact,
                max_compute_ms=num_choices * max_compute_ms,
                n_choices=num_choices,
            )
            replica = self.call.deployment.replica
            running = RunningRequest(self.ticket, replica, prepared.prompt_tokens, max_tokens, num_choices)
            opened = await self._holds.open(hold, running)
            self._is_compute_bounded = opened.max_compute_ms is not None
            self._has_hold = True
        self._is_held = True

    def bounded(self, engine_requests: Sequence[AddRequest | EmbedRequest]) -> Sequence[AddRequest | EmbedRequest]:
        """Return the requests of its choices with the limit of compute time that was held (BILLING R7). Only the
        transaction of the hold knows whether a budget bounds it."""
        if self._by_time or not self._is_compute_bounded:
            return engine_requests
        max_compute_ms = self.call.deployment.max_compute_ms
        return [replace(request, max_compute_ms=max_compute_ms) for request in engine_requests]

    async def fail(self, error: Exception) -> None:
        """End a request before all of its call have started: refuse the others too, and give back everything."""
        self.group.refuse(error)
        try:
            await self.choices.withdraw()
            if self._is_held:
                await self._resolve("failed", Usage())
        finally:
            self.ticket.refuse(error)
            self.completion.refuse(error)

    async def finish(self, finished: Finished) -> None:
        """End a request that has started: settle or void it (BILLING R16), and only then let its reader see the end."""
        self.ticket.settle(finished.usage)
        try:
            event = await self._settled(replace(finished, by_time=self._by_time))
        except Exception:  # the reader must not wait for ever
            # Not in the ledger, so not to be seen as complete. The next start voids its hold.
            logger.exception("request %s could not be settled", self.request_id)
            event = GenerationError("The server could not record your request. You were not billed.")
        self.completion.put(event)

    async def _settled(self, finished: Finished) -> Finished | InferdError:
        """Return what the reader sees, once it is committed."""
        reason, persist = finished.finish_reason, self.call.persist
        has_failed = self.completion.cut_by is not None or reason is FinishReason.ERROR
        if not await self.group.ended(failed=has_failed):
            failure = self._failure(finished)
            await self._resolve("failed", Usage())
            return failure
        if persist is not None and not await persist(finished):
            await self._resolve("cancelled", Usage())
            ended_ns = time.monotonic_ns()
            return replace(finished, finish_reasons=(FinishReason.CANCELLED,), usage=Usage(), ended_ns=ended_ns)
        status: Status = "cancelled" if reason is FinishReason.CANCELLED else "completed"
        cost_nanousd = await self._resolve(status, finished.usage, reason)
        settled = replace(finished, cost_nanousd=cost_nanousd, ended_ns=time.monotonic_ns())
        self._log(settled)
        if self.call.on_settled is not None:
            await self.call.on_settled(settled)
        return settled

    def _failure(self, finished: Finished) -> InferdError:
        """Return the error for the reader of a request that the server has ended."""
        if self.completion.cut_by is not None:
            logger.info("request %s was cut off", self.request_id)
            return self.completion.cut_by
        why = finished.error or "another request of its call failed"
        logger.error("request %s failed: %s", self.request_id, why)
        return GenerationError("The server had an error while processing your request. You were not billed.")

    async def _resolve(self, status: Status, usage: Usage, reason: FinishReason | None = None) -> int:
        """Commit the end of the request; return its cost in nano-USD."""
        now_ms, finish_reason = self._holds.clock_ms(), None if reason is None else reason.value
        if not self._has_hold:
            command: RecordFree | VoidHold | SettleHold = self._free_record(status, usage, now_ms, finish_reason)
        elif status == "failed" or usage.total_tokens == 0:
            command = VoidHold(self.request_id, "failed" if status == "failed" else "cancelled", now_ms)
        else:
            command = SettleHold(self.request_id, usage, status, now_ms, finish_reason)
        return await self._holds.resolve(self.request_id, command)

    def _free_record(self, status: Status, usage: Usage, now_ms: int, finish_reason: str | None) -> RecordFree:
        return RecordFree(
            request_id=self.request_id,
            attribution=self._attribution,
            usage=usage,
            status=status,
            finish_reason=finish_reason,
            admitted_at_ms=self._admitted_at_ms,
            finished_at_ms=now_ms,
        )

    def _log(self, finished: Finished) -> None:
        """Log one line a request; never a word of what was asked or answered."""
        usage = finished.usage
        logger.info(
            "%s %s model=%s %s: %d+%d tokens, %s, %d ms",
            self.request_id,
            self.call.caller.log_fields(),
            self.call.deployment.name,
            finished.finish_reason.value,
            usage.prompt_tokens,
            usage.completion_tokens,
            display_usd(finished.cost_nanousd),
            self._holds.clock_ms() - self._admitted_at_ms,
        )
