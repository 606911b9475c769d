"""HTTP calls of endpoints that count requests: authenticated, rate limited, with their body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from starlette.requests import Request

from inferd.deployments.deployment import Deployment
from inferd.errors import ClientGoneError, InvalidRequestError
from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.identity import Caller
from inferd.limits.ticket import RateLimitTicket
from inferd.server.auth import authenticate_request, require_model, require_scope
from inferd.server.middleware.response_headers import remember_ignored, remember_retirement
from inferd.server.rate_limit_headers import remember_limits
from inferd.server.services import services_of
from inferd.server.streaming import on_disconnect
from inferd.server.transport.body import read_body
from inferd.serving.completion import Completion, Finished
from inferd.serving.endpoints.cache_hints import CacheHints
from inferd.serving.endpoints.endpoint import Call, Endpoint
from inferd.tokenizer import Check
from inferd.wire.errors import missing
from inferd.wire.ignored_fields import IgnoredFields

SMALL_BODY_BYTES = 64 * 1024
"""A body up to this size is parsed on the event loop, within some milliseconds; a larger one on a worker thread."""
SESSION_HEADERS = (
    "x-session-affinity",  # Fireworks, opencode
    "x-session-id",
    "session_id",  # pi, older Codex
    "session-id",  # Codex
    "x-claude-code-session-id",
    "x-amp-thread-id",
    "x-litellm-session-id",
    "x-openwebui-chat-id",
)
"""Names of a conversation. The first header that a request has is taken."""
ISOLATION_HEADER = "x-prompt-cache-isolation-key"
MAX_HEADER_BYTES = 512

_T = TypeVar("_T")


class AnswerKeeper(Protocol):
    """Store of one answer, see `Persist` and `OnSettled`."""

    async def persist(self, finished: Finished) -> bool: ...

    async def settled(self, finished: Finished) -> None: ...


@dataclass(frozen=True, slots=True)
class ApiCall:
    """HTTP call with its body, of an authenticated caller. It counts in its team's minute.

    Attributes:
        received_ns: when it came, on `time.monotonic_ns`.
        ignored: fields of the body that have no effect; the answer's headers name them.
    """

    request: Request
    caller: Caller
    ticket: RateLimitTicket
    body: bytes
    received_ns: int
    ignored: IgnoredFields

    async def parse(self, parser: Callable[[bytes, IgnoredFields], _T]) -> _T:
        """Return the body as the parser reads it."""
        if len(self.body) <= SMALL_BODY_BYTES:
            return parser(self.body, self.ignored)
        return await asyncio.to_thread(parser, self.body, self.ignored)

    def deployment(self, model: str) -> Deployment:
        """Return the deployment of that name or alias. Raises ModelNotFoundError, PermissionDeniedError."""
        self.request.state.model = model
        deployment = services_of(self.request).router.find(model, self.caller.may_use)
        self.request.state.model = deployment.name
        require_model(self.caller, deployment.name)
        remember_retirement(self.request, deployment)
        return deployment

    def ready_deployment(self, model: str | None) -> Deployment:
        """Return the deployment of that name; without a name, the only one that the caller may use. Raises as
        `deployment` and `only_model`, and OverloadedError while its vocabulary is not loaded."""
        deployment = self.deployment(only_model(self.request, self.caller) if model is None else model)
        deployment.check_ready()
        return deployment

    async def tokenized(self, deployment: Deployment, work: Callable[[Check], _T]) -> _T:
        """Return the result of `work` on a tokenizer's thread, which is never billed. Raises ClientGoneError if the
        client hangs up; `work` then ends at its next check."""
        completions = services_of(self.request).completions
        job = asyncio.create_task(completions.tokenize(self.caller.team, deployment, self.ticket, work))
        try:
            async with on_disconnect(job.cancel, self.request):
                await asyncio.wait([job])
        finally:
            job.cancel()
        if job.cancelled():
            raise ClientGoneError("The client closed the connection.")
        return job.result()

    def begin(self, endpoint: Endpoint, keeper: AnswerKeeper | None = None) -> tuple[Call, Completion]:
        """Accept a call for text or vectors, which from here on gives back itself what its ticket took. Raises the
        error that refuses it at once.

        Args:
            keeper: stores the answer; None: the answer is not stored.
        """
        deployment = self.deployment(endpoint.model)
        endpoint.record_unheard(deployment.replica, self.ignored)
        cache = endpoint.cache_hints
        if endpoint.reads_cache_headers:
            cache = header_hints(self.request.headers).or_else(cache)
        call = Call(
            request_id=self.request.state.request_id,
            caller=self.caller,
            endpoint=endpoint,
            deployment=deployment,
            tier=endpoint.tier,
            cache=cache,
            received_ns=self.received_ns,
            persist=None if keeper is None else keeper.persist,
            on_settled=None if keeper is None else keeper.settled,
        )
        return call, services_of(self.request).completions.begin(call, self.ticket)


def only_model(request: Request, caller: Caller) -> str:
    """Return the name of the only deployment that the caller may use, for clients that name none: vLLM and llama-server
    serve one model. Raises InvalidRequestError if there are several."""
    names = [each.name for each in services_of(request).router.deployments() if caller.may_use(each.name)]
    if len(names) != 1:
        raise missing("model")
    return names[0]


@asynccontextmanager
async def api_call(request: Request, *, may_lack_key: bool = False) -> AsyncIterator[ApiCall]:
    """Read a call. An exception within the block gives back what its ticket took.

    Args:
        may_lack_key: see `authenticate_request`.
    """
    received_ns = time.monotonic_ns()
    async with rate_limited(request, may_lack_key=may_lack_key) as (caller, ticket):
        ignored = remember_ignored(request)
        yield ApiCall(request, caller, ticket, await read_body(request), received_ns, ignored)


@asynccontextmanager
async def rate_limited(
    request: Request, *, may_lack_key: bool = False
) -> AsyncIterator[tuple[Caller, RateLimitTicket]]:
    """Authenticate, check the scope and count the request in the team's minute. Before the body is read, so that
    refusing a rate-limited caller is cheap. An exception within the block gives back what the ticket took.

    A user that a trusted key names for the first time is made once the request was counted, so that new names cannot
    come faster than requests.

    Args:
        may_lack_key: see `authenticate_request`.
    """
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator, may_lack_key=may_lack_key)
    require_scope(caller, "inference")
    ticket = services.ticket_issuer.issue(caller)
    remember_limits(request, ticket)
    try:
        ticket.take_request()
        if caller.is_new_user:
            caller = await _with_new_user(request, caller)
        yield caller, ticket
    except BaseException as error:
        ticket.refuse(error)
        raise


async def _with_new_user(request: Request, caller: Caller) -> Caller:
    """Return the caller once its user is in the ledger. Raises PermissionDeniedError if its team has too many, which is
    found out without the writer: a flood of such names must not delay the holds of others."""
    ledger = services_of(request).ledger
    name, by = caller.user, operations.Author(f"key:{caller.key_id}", wall_clock_ms())
    assert name is not None, "a new user has a name"
    await ledger.read(lambda conn: operations.check_user_room(conn, caller.team, name))
    user = await ledger.change(lambda conn: operations.make_named_user(conn, caller.team, name, by=by))
    return replace(caller, user=user, is_new_user=False)


def header_hints(headers: Mapping[str, str]) -> CacheHints:
    """Return the hints of a request's headers. Raises InvalidRequestError for an isolation key that is too long.

    A session is a hint only, so one that is no plain text, or too long, is as good as none. An isolation key is not:
    without it, prefixes would be shared that the caller wants apart.
    """
    sessions = (headers.get(name) for name in SESSION_HEADERS)
    isolation_key = headers.get(ISOLATION_HEADER)
    if isolation_key is not None and len(isolation_key) > MAX_HEADER_BYTES:
        raise InvalidRequestError(
            f"The header {ISOLATION_HEADER} has {len(isolation_key)} bytes; at most {MAX_HEADER_BYTES} are allowed.",
            param=ISOLATION_HEADER,
            code="invalid_value",
        )
    return CacheHints(next((each for each in sessions if each and _is_name(each)), None), isolation_key or None)


def _is_name(value: str) -> bool:
    """Return whether a header's value, of which each character is a byte, can name a conversation."""
    return len(value) <= MAX_HEADER_BYTES and not any(byte < " " or byte == "\x7f" for byte in value)
