"""Life of requests: prepared, held, generated, settled. Engine and ledger meet here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from inferd.deployments.deployment import Deployment
from inferd.errors import OverloadedError
from inferd.limits.ticket import RateLimitTicket
from inferd.serving.completion import Completion
from inferd.serving.endpoints.endpoint import Call, Prepared
from inferd.serving.holds import Holds
from inferd.serving.request_context import RequestContext
from inferd.serving.request_group import RequestGroup
from inferd.serving.tokenizer_pool import TokenizerPool
from inferd.tokenizer import Check
from inferd.usage import Usage

RETRY_AFTER_S = 5.0

_T = TypeVar("_T")


class Completions:
    """All live requests. Each that is accepted ends in one terminal engine output, and its hold is resolved once.

    A request is owned by a task of its own, not by the response: a client that hangs up ends the generation, but never
    the accounting.
    """

    def __init__(self, holds: Holds) -> None:
        self.tokenizers = TokenizerPool()
        self._holds = holds
        self._live: dict[asyncio.Task[None], Completion] = {}
        self._is_closed = False

    @property
    def num_live(self) -> int:
        return len(self._live)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def begin(self, call: Call, ticket: RateLimitTicket) -> Completion:
        """Accept a call, whose requests give back what they take; wait for `Completion.admitted`.

        Args:
            ticket: of the call, which has counted as a request.

        Raises:
            RateLimitError: its caller has too many requests under way, or in this minute.
            OverloadedError: the server stops, or the model is not ready.
            InvalidRequestError: the model does not offer the service tier, or is not for such calls.
        """
        tickets = [ticket, *(ticket.another() for _ in range(1, call.endpoint.num_requests))]
        try:
            for further in tickets[1:]:
                further.take_request()
            is_free = call.deployment.price_at(self._holds.clock_ms()) is None
            for each in tickets:
                each.enter(call.deployment.name, is_free=is_free)
            self._check(call)
        except BaseException as error:
            for each in tickets:
                each.refuse(error)
            raise
        completion = Completion(len(tickets))
        group = RequestGroup(completion)
        for number, each in enumerate(tickets):
            request = RequestContext(call, number, each, group, self._holds)
            task = asyncio.create_task(self._run(request), name=f"completion {request.request_id}")
            self._live[task] = completion
            task.add_done_callback(lambda task: self._live.pop(task))
        return completion

    async def tokenize(
        self, team: str, deployment: Deployment, ticket: RateLimitTicket, work: Callable[[Check], _T]
    ) -> _T:
        """Return the result of `work` on a tokenizer's thread, counted as a request under way and never billed. If this
        raises, the caller refuses the ticket."""
        ticket.enter(deployment.name, is_free=False)
        result = await self.tokenizers.run(team, work)
        ticket.settle(Usage())
        return result

    def close(self) -> None:
        """Accept no more calls; requests under way go on."""
        self._is_closed = True

    def cut_off(self) -> None:
        """Accept no more calls, and end those under way unbilled: a stop is the server's doing (BILLING R16).

        Call it before the HTTP server ends its connections, which would look as if the clients had hung up. Holds are
        voided as the engines give the requests back.
        """
        self._is_closed = True
        error = OverloadedError(
            "The server is shutting down: your request was cut off, and you were not billed.",
            retry_after_s=RETRY_AFTER_S,
        )
        for completion in self._live.values():
            completion.cut(error)

    def check_space(self) -> None:
        """Raise OverloadedError while the disk is nearly full: then nothing new is accepted."""
        self._holds.check_space()

    async def wait_idle(self, timeout_s: float | None) -> bool:
        """Wait until every request has ended; return False if the time was not enough."""
        if not self._live:
            return True
        _, pending = await asyncio.wait(self._live, timeout=timeout_s)
        return not pending

    def _check(self, call: Call) -> None:
        call.deployment.check_tier(call.tier)
        if self._is_closed:
            raise OverloadedError("The server is shutting down.", retry_after_s=RETRY_AFTER_S)
        call.deployment.check_ready()
        call.endpoint.check_model(call.deployment)

    async def _run(self, request: RequestContext) -> None:
        try:
            prepared = await self._prepared(request)
            engine_requests = await prepared.engine_requests(request.labels)
            if request.completion.cut_by is not None:
                raise request.completion.cut_by
            await request.hold(prepared)
            await request.group.held()
            request.choices.submit(request.bounded(engine_requests))
            await request.group.started()
        except Exception as error:  # noqa: BLE001 - for the reader, which waits in Completion.admitted
            await request.fail(error)
            return
        request.completion.admit(prepared.admission)
        await request.finish(await request.choices.end())

    async def _prepared(self, request: RequestContext) -> Prepared:
        call, number, most = request.call, request.number, request.ticket.max_output_tokens
        return await self.tokenizers.run_until(
            call.caller.team,
            lambda check: call.endpoint.prepare(number, call.deployment, most, check=check),
            request.completion.cancelled,
            request.group.refusal,
        )
