"""Calls of the admin API: authentication, rights, bodies and answers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd.errors import InvalidRequestError, PermissionDeniedError
from inferd.instants import wall_clock_ms
from inferd.ledger import Connection
from inferd.ledger.identity import Caller, Key, find_key
from inferd.ledger.operations import Author
from inferd.money import parse_usd
from inferd.server.auth import authenticate_request, require_scope
from inferd.server.services import Services, services_of
from inferd.server.transport.body import read_body
from inferd.server.transport.local_socket import OPERATOR
from inferd.wire.json_body import decode

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_IDEMPOTENCY_HEADER = "idempotency-key"

# Caller on the UNIX socket, which has no key and no team.
_LOCAL_OPERATOR = Caller(team="", project="", user=None, key_id="", plan="", scopes=("admin",))


@dataclass(frozen=True, slots=True)
class AdminCall:
    """An authenticated call.

    Attributes:
        team: the team in the path; empty without one.
        author: the caller's key, as the audit log names it, and the time of the call.
    """

    request: Request
    services: Services
    caller: Caller
    team: str
    author: Author

    @property
    def is_operator(self) -> bool:
        """True if the caller's key has the scope `admin`."""
        return "admin" in self.caller.scopes

    @property
    def now_ms(self) -> int:
        """The time of the call, in ms since 1970."""
        return self.author.now_ms

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        value: str = self.request.path_params[name]
        return value

    def manager(self, conn: Connection) -> Key:
        """Return the caller's key, whose own limits bind a caller that is no operator."""
        return find_key(conn, self.caller.key_id)

    async def body(self, kind: type[S]) -> S:
        """Return the body as a struct; an empty one stands for `{}`. Raises InvalidRequestError."""
        return decode(await read_body(self.request) or b"{}", msgspec.json.Decoder(kind))

    def idempotency_key(self) -> str:
        """Return the header Idempotency-Key. Raises InvalidRequestError without one."""
        key = self.request.headers.get(_IDEMPOTENCY_HEADER, "")
        if not key:
            raise InvalidRequestError(
                "This moves money, so it needs a header Idempotency-Key: any text that is new for each such call, and "
                "the same when a call is repeated.",
                code="missing_idempotency_key",
            )
        return key

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Run a reading operation. Raises RateLimitError if too many of the caller's team wait."""
        return await self.services.ledger.report(self.caller.team, operation)

    async def change(self, operation: Callable[[Connection], T]) -> T:
        """Run a writing operation. Raises RateLimitError if the caller's team makes too many changes."""
        if not self.is_operator:
            self.services.ticket_issuer.take_change(self.caller.team)
        return await self.services.ledger.change(operation)


Handler = Callable[[AdminCall], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def for_operator(handler: Handler) -> Endpoint:
    """Return the endpoint of a handler that is only for keys with the scope `admin`."""

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        call = _call(request)
        require_scope(call.caller, "admin")
        return await handler(call)

    return endpoint


def for_team(handler: Handler) -> Endpoint:
    """Return the endpoint of a handler that is for `admin`, and for `manage` of the team in the path."""

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        call = _call(request)
        require_scope(call.caller, "manage")
        if not call.is_operator and call.team != call.caller.team:
            # Before anything is looked up: the answer does not tell which teams exist.
            raise PermissionDeniedError(
                f"This API key may manage team `{call.caller.team}` only.", code="insufficient_scope"
            )
        return await handler(call)

    return endpoint


def _call(request: Request) -> AdminCall:
    services = services_of(request)
    operator: str | None = request.scope["state"].get(OPERATOR)
    caller = authenticate_request(request, services.authenticator) if operator is None else _LOCAL_OPERATOR
    author = Author(operator or f"key:{caller.key_id}", wall_clock_ms())
    return AdminCall(request, services, caller, request.path_params.get("team", ""), author)


def answer(value: object) -> Response:
    """Return a 200 with JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def amount_nanousd(text: str, param: str = "amount_usd") -> int:
    """Return the nano-USD of a decimal string of USD. Raises InvalidRequestError."""
    try:
        return parse_usd(text)
    except ValueError as error:
        raise InvalidRequestError(f"'{param}' is wrong: {error}.", param=param, code="invalid_value") from error
