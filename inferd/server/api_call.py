"""The beginning of every call for text or vectors, in whatever shape it comes: who asks, how fast, for what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from inferd.chat.answer_reader import AnswerReader
from inferd.deployments.deployment import Deployment
from inferd.errors import ClientGoneError
from inferd.instants import wall_clock_ms
from inferd.ledger.identity.keys import Caller
from inferd.limits.ticket import RateLimitTicket
from inferd.server.auth import authenticate_request, require_model, require_scope
from inferd.server.disconnect import on_disconnect
from inferd.server.header_values import header_tag
from inferd.server.middleware.response_headers import remember_ignored
from inferd.server.middleware.retirement_notice import remember_retirement
from inferd.server.rate_limit_headers import given_back_if_refused, limit_headers, remember_ticket
from inferd.server.services import services_of
from inferd.server.transport.body import read_body
from inferd.serving.cache_hints import CacheHints
from inferd.serving.completion import Admission, Completion
from inferd.serving.endpoints.admission import record_unheard
from inferd.tokenizer import Check
from inferd.usage import Usage
from inferd.wire.field_names import OWN_NAMES, FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest

MAX_TOKENS_HEADER = "inferd-max-tokens"
SMALL_BODY_BYTES = 64 * 1024
"""Decoded and checked at once, within some milliseconds; a larger one on a worker thread."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A chat request that was taken on. `received_ns`: when it came, on `time.monotonic_ns`."""

    request: Request
    chat: ChatRequest
    deployment: Deployment
    completion: Completion
    received_ns: int

    def reader(self, admission: Admission) -> AnswerReader:
        """For the completion's text."""
        return self.deployment.replica.chat_format.reader(self.chat, in_reasoning=admission.in_reasoning)

    def headers(self, admission: Admission) -> dict[str, str]:
        """What every answer to it says of limits."""
        clamped = admission.clamped_max_tokens
        return ({} if clamped is None else {MAX_TOKENS_HEADER: str(clamped)}) | limit_headers(self.request)


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call whose body was read, by a caller who may make calls. It counts in its team's minute.

    Attributes:
        ignored: what of the body has no effect; the answer's headers say so.
    """

    request: Request
    caller: Caller
    ticket: RateLimitTicket
    body: bytes
    received_ns: int
    ignored: IgnoredFields

    async def parse(self, parser: Callable[[bytes, IgnoredFields], _T]) -> _T:
        """The body, as the parser reads it."""
        if len(self.body) <= SMALL_BODY_BYTES:
            return parser(self.body, self.ignored)
        return await asyncio.to_thread(parser, self.body, self.ignored)

    def deployment(self, model: str) -> Deployment:
        """Raises ModelNotFoundError, PermissionDeniedError."""
        self.request.state.model = model
        deployment = services_of(self.request).router.find(model)
        require_model(self.caller, deployment.name)
        remember_retirement(self.request, deployment)
        return deployment

    def ready_deployment(self, model: str) -> Deployment:
        """The same; raises OverloadedError while its vocabulary is not loaded."""
        deployment = self.deployment(model)
        deployment.check_ready()
        return deployment

    async def tokenized(self, deployment: Deployment, work: Callable[[Check], _T]) -> _T:
        """The result of `work` on a tokenizer's thread, counted as a request under way but billed nothing. Raises
        ClientGoneError if the client hangs up; `work` then ends at its next check."""
        self.ticket.enter(deployment.name, is_free=False)
        job = asyncio.create_task(services_of(self.request).completions.tokenizers.run(self.caller.team, work))
        try:
            async with on_disconnect(job.cancel, self.request):
                await asyncio.wait([job])
        finally:
            job.cancel()
        if job.cancelled():
            raise ClientGoneError("The client closed the connection.")
        result = job.result()
        self.ticket.settle(Usage())
        return result

    def begin(self, chat: ChatRequest, names: FieldNames = OWN_NAMES) -> ChatCall:
        """Take the request on; from here on it gives back itself what its ticket took. Raises what refuses it at once.

        Args:
            names: how its caller calls its fields.
        """
        services = services_of(self.request)
        deployment = self.deployment(chat.model)
        record_unheard(chat, deployment.replica, self.ignored, names)
        hints = CacheHints.of(
            chat,
            affinity=header_tag(self.request, "x-session-affinity"),
            isolation_key=header_tag(self.request, "x-prompt-cache-isolation-key"),
        )
        self.ticket.enter(deployment.name, is_free=deployment.price_at(wall_clock_ms()) is None)
        request_id: str = self.request.state.request_id
        completion = services.completions.begin(request_id, self.caller, deployment, chat, hints, self.ticket)
        return ChatCall(self.request, chat, deployment, completion, self.received_ns)


@asynccontextmanager
async def api_call(request: Request) -> AsyncIterator[ApiCall]:
    """What is raised within the block gives back what the ticket took."""
    received_ns = time.monotonic_ns()
    with rate_limited(request) as (caller, ticket):
        ignored = remember_ignored(request)
        yield ApiCall(request, caller, ticket, await read_body(request), received_ns, ignored)


@contextmanager
def rate_limited(request: Request) -> Iterator[tuple[Caller, RateLimitTicket]]:
    """Who asks, by right, in the team's minute; before the body is read, so that whoever goes too fast costs little."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    require_scope(caller, "inference")
    ticket = services.ticket_issuer.issue(caller)
    remember_ticket(request, ticket)
    with given_back_if_refused(ticket):
        ticket.take_request()
        yield caller, ticket
