"""Money: grants, withdrawals, voids, refunds, payments. Each needs an Idempotency-Key, and the scope `admin`."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd.errors import InvalidRequestError, InvalidValueError, NotFoundError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.credit.balance import caps_below_balance
from inferd.ledger.storage.client import Connection
from inferd.ledger.terms.periods import parse_month
from inferd.plans import DEFAULT_PRIORITY, GrantKind
from inferd.server.admin.call import AdminCall, amount_nanousd, answer, operator_call, team_call
from inferd.server.admin.paging import Paging
from inferd.wire.errors import shorten


class NewGrant(msgspec.Struct, forbid_unknown_fields=True):
    amount_usd: str
    kind: GrantKind = "paid"
    priority: int = DEFAULT_PRIORITY
    expires_at: str | None = None
    note: str | None = None


class Withdraw(msgspec.Struct, forbid_unknown_fields=True):
    amount_usd: str
    reason: str


class VoidGrant(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class RefundRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`amount_usd` null: all that is left of the cost."""

    reason: str
    amount_usd: str | None = None


class PayStatement(msgspec.Struct, forbid_unknown_fields=True):
    """`amount_usd` null: all that is due."""

    amount_usd: str | None = None
    note: str | None = None


def _month(call: AdminCall) -> str:
    period = call.path("period")
    try:
        return parse_month(period)
    except InvalidValueError as exc:
        raise InvalidRequestError(
            f"{shorten(period)!r} is not a month such as 2026-11.", param="period", code="invalid_value"
        ) from exc


async def show_credit(request: Request) -> Response:
    call = team_call(request)
    credit = await call.read(lambda conn: operations.show_credit(conn, call.team, now_ms=call.now_ms))
    return answer(credit.to_json())


async def list_grants(request: Request) -> Response:
    call, paging = team_call(request), Paging.of(request, numbered=True)
    found = await call.read(lambda conn: operations.list_grants(conn, call.team, paging.page, now_ms=call.now_ms))
    return paging.answer("grants", found, lambda grant: grant.grant_id, lambda grant: grant.state_json())


async def grant(request: Request) -> Response:
    call = operator_call(request)
    key, body = call.idempotency_key(), await call.body(NewGrant)
    amount = amount_nanousd(body.amount_usd)
    expires_at_ms = None if body.expires_at is None else parse_instant_ms(body.expires_at)

    def change(conn: Connection) -> dict[str, Any]:
        made = operations.grant_credit(
            conn,
            call.team,
            amount,
            body.kind,
            priority=body.priority,
            expires_at_ms=expires_at_ms,
            note=body.note,
            idempotency_key=key,
            actor=call.actor,
            now_ms=call.now_ms,
        )
        return made.to_json() | {"warnings": caps_below_balance(conn, call.team, call.now_ms)}

    return answer(await call.change(change))


async def withdraw(request: Request) -> Response:
    call = operator_call(request)
    key, body = call.idempotency_key(), await call.body(Withdraw)
    amount = amount_nanousd(body.amount_usd)
    made = await call.change(
        lambda conn: operations.withdraw_credit(
            conn,
            call.team,
            amount,
            reason=body.reason,
            idempotency_key=key,
            actor=call.actor,
            now_ms=call.now_ms,
        )
    )
    return answer(made.to_json())


async def void(request: Request) -> Response:
    call = operator_call(request)
    key, body = call.idempotency_key(), await call.body(VoidGrant)
    text = call.path("grant_id")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidRequestError(f"{text!r} is not the id of a grant.", param="grant_id", code="invalid_value")

    def change(conn: Connection) -> dict[str, Any]:
        made = operations.void_grant(
            conn, int(text), reason=body.reason, idempotency_key=key, actor=call.actor, now_ms=call.now_ms
        )
        if made.team != call.team:
            raise NotFoundError(f"team {call.team!r} has no grant {text}")
        return made.to_json()

    return answer(await call.change(change))


async def refund(request: Request) -> Response:
    call = operator_call(request)
    key, body = call.idempotency_key(), await call.body(RefundRequest)
    amount = None if body.amount_usd is None else amount_nanousd(body.amount_usd)

    def change(conn: Connection) -> dict[str, Any]:
        made = operations.refund_request(
            conn,
            call.path("request_id"),
            amount,
            reason=body.reason,
            idempotency_key=key,
            actor=call.actor,
            now_ms=call.now_ms,
        )
        if made.team != call.team:
            raise NotFoundError(f"team {call.team!r} has no request {made.request_id!r}")
        return made.to_json()

    return answer(await call.change(change))


async def list_statements(request: Request) -> Response:
    call, paging = team_call(request), Paging.of(request)
    found = await call.read(lambda conn: operations.list_statements(conn, call.team, paging.page))
    return paging.answer("statements", found, lambda each: each.period, lambda each: each.to_json(call.now_ms))


async def show_statement(request: Request) -> Response:
    call = team_call(request)
    period = _month(call)
    statement, lines = await call.read(lambda conn: operations.show_statement(conn, call.team, period))
    return answer(statement.to_json(call.now_ms) | {"lines": [line.to_json() for line in lines]})


async def pay(request: Request) -> Response:
    call = operator_call(request)
    key, body = call.idempotency_key(), await call.body(PayStatement)
    amount = None if body.amount_usd is None else amount_nanousd(body.amount_usd)
    period = _month(call)
    made = await call.change(
        lambda conn: operations.pay_statement(
            conn,
            call.team,
            period,
            amount,
            note=body.note,
            idempotency_key=key,
            actor=call.actor,
            now_ms=call.now_ms,
        )
    )
    return answer(made.to_json())
