"""One call of the admin API: who asks, with what right, and its body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd.errors import InvalidRequestError, PermissionDeniedError
from inferd.instants import wall_clock_ms
from inferd.ledger.identity.keys import Caller, Key, find_key
from inferd.ledger.storage.client import Connection, LedgerClient
from inferd.money import parse_usd
from inferd.server.auth import authenticate_request, require_scope
from inferd.server.services import services_of
from inferd.server.transport.body import read_body
from inferd.server.transport.local_socket import OPERATOR
from inferd.wire.json_body import decode

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

IDEMPOTENCY_HEADER = "idempotency-key"

_LOCAL_OPERATOR = Caller(team="", project="", user=None, key_id="", plan="", scopes=("admin",))
"""Caller on the UNIX socket, which has no key and no team."""


@dataclass(frozen=True, slots=True)
class AdminCall:
    """Attributes:
    team: the one in the path; empty where there is none.
    actor: how the log names the caller.
    """

    request: Request
    caller: Caller
    team: str
    actor: str
    now_ms: int
    ledger: LedgerClient

    @property
    def is_operator(self) -> bool:
        return self.caller.has_scope("admin")

    def path(self, name: str) -> str:
        """A part of the path."""
        value: str = self.request.path_params[name]
        return value

    def manager(self, conn: Connection) -> Key:
        """The caller's key, whose own limits bind it."""
        return find_key(conn, self.caller.key_id)

    def require_operator(self) -> None:
        require_scope(self.caller, "admin")

    async def body(self, kind: type[S]) -> S:
        """The body as a struct; an empty one stands for `{}`. Raises InvalidRequestError."""
        return decode(await read_body(self.request) or b"{}", msgspec.json.Decoder(kind))

    def idempotency_key(self) -> str:
        """Raises InvalidRequestError without one: whoever moves money can say it twice, and mean it once."""
        key = self.request.headers.get(IDEMPOTENCY_HEADER, "")
        if not key:
            raise InvalidRequestError(
                "This moves money, so it needs a header Idempotency-Key: any text that is new for each such call, and "
                "the same when a call is repeated.",
                code="missing_idempotency_key",
            )
        return key

    async def read(self, operation: Callable[[Connection], T]) -> T:
        return await self.ledger.report(self.caller.team, operation)

    async def change(self, operation: Callable[[Connection], T]) -> T:
        """Make a change. Raises RateLimitError if the caller's team makes too many."""
        if not self.is_operator:
            services_of(self.request).ticket_issuer.take_change(self.caller.team)
        return await self.ledger.change(operation)


def operator_call(request: Request) -> AdminCall:
    """A call for keys with the scope `admin`. Raises AuthenticationError, PermissionDeniedError."""
    call = _call(request)
    call.require_operator()
    return call


def team_call(request: Request) -> AdminCall:
    """A call for `admin`, and for `manage` of the team in the path.

    Another team is refused before anything is looked up, so that nobody learns which teams there are.
    """
    call = _call(request)
    require_scope(call.caller, "manage")
    if not call.is_operator and call.team != call.caller.team:
        raise PermissionDeniedError(
            f"This API key may manage team `{call.caller.team}` only.", code="insufficient_scope"
        )
    return call


def _call(request: Request) -> AdminCall:
    services = services_of(request)
    operator: str | None = request.scope["state"].get(OPERATOR)
    caller = authenticate_request(request, services.authenticator) if operator is None else _LOCAL_OPERATOR
    return AdminCall(
        request=request,
        caller=caller,
        team=request.path_params.get("team", ""),
        actor=operator or f"key:{caller.key_id}",
        now_ms=wall_clock_ms(),
        ledger=services.ledger,
    )


def answer(value: object) -> Response:
    """200 with JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def amount_nanousd(text: str, param: str = "amount_usd") -> int:
    """Raises InvalidRequestError unless it is USD as a decimal string."""
    try:
        return parse_usd(text)
    except ValueError as exc:
        raise InvalidRequestError(f"'{param}' is wrong: {exc}.", param=param, code="invalid_value") from exc
