"""Grants, withdrawals, voids, refunds and payments. Each change needs an Idempotency-Key."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from inferd.errors import InvalidRequestError, InvalidValueError, NotFoundError
from inferd.instants import parse_instant_ms
from inferd.ledger import Connection, operations
from inferd.ledger.credit import caps_below_balance
from inferd.ledger.reports import (
    credit_record,
    grant_record,
    grant_state_record,
    payment_record,
    refund_record,
    statement_line_record,
    statement_record,
    void_record,
    withdrawal_record,
)
from inferd.ledger.terms import parse_month
from inferd.plans import DEFAULT_PRIORITY, GrantKind
from inferd.server.admin.call import AdminCall, amount_nanousd, answer
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
    """`amount_usd` null: the whole remaining cost."""

    reason: str
    amount_usd: str | None = None


class PayStatement(msgspec.Struct, forbid_unknown_fields=True):
    """`amount_usd` null: all that is due."""

    amount_usd: str | None = None
    note: str | None = None


def _month(call: AdminCall) -> str:
    """Return the month in the path. Raises InvalidRequestError."""
    period = call.path("period")
    try:
        return parse_month(period)
    except InvalidValueError as error:
        raise InvalidRequestError(
            f"{shorten(period)!r} is not a month such as 2026-11.", param="period", code="invalid_value"
        ) from error


async def show_credit(call: AdminCall) -> Response:
    credit = await call.read(lambda conn: operations.show_credit(conn, call.team, now_ms=call.now_ms))
    return answer(credit_record(credit))


async def list_grants(call: AdminCall) -> Response:
    paging = Paging.of(call.request, numbered=True)
    found = await call.read(lambda conn: operations.list_grants(conn, call.team, paging.page, now_ms=call.now_ms))
    return paging.answer("grants", found, lambda grant: grant.grant_id, grant_state_record)


async def grant(call: AdminCall) -> Response:
    key, body = call.idempotency_key(), await call.body(NewGrant)
    new = operations.NewGrant(
        amount_nanousd(body.amount_usd),
        body.kind,
        priority=body.priority,
        expires_at_ms=None if body.expires_at is None else parse_instant_ms(body.expires_at),
        note=body.note,
    )

    def change(conn: Connection) -> dict[str, Any]:
        made = operations.grant_credit(conn, call.team, new, idempotency_key=key, by=call.author)
        return grant_record(made) | {"warnings": caps_below_balance(conn, call.team, call.now_ms)}

    return answer(await call.change(change))


async def withdraw(call: AdminCall) -> Response:
    key, body = call.idempotency_key(), await call.body(Withdraw)
    amount = amount_nanousd(body.amount_usd)
    made = await call.change(
        lambda conn: operations.withdraw_credit(
            conn, call.team, amount, reason=body.reason, idempotency_key=key, by=call.author
        )
    )
    return answer(withdrawal_record(made))


async def void(call: AdminCall) -> Response:
    key, body = call.idempotency_key(), await call.body(VoidGrant)
    text = call.path("grant_id")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidRequestError(f"{text!r} is not the id of a grant.", param="grant_id", code="invalid_value")

    def change(conn: Connection) -> dict[str, Any]:
        made = operations.void_grant(conn, int(text), reason=body.reason, idempotency_key=key, by=call.author)
        if made.team != call.team:
            raise NotFoundError(f"team {call.team!r} has no grant {text}")
        return void_record(made)

    return answer(await call.change(change))


async def refund(call: AdminCall) -> Response:
    key, body = call.idempotency_key(), await call.body(RefundRequest)
    amount = None if body.amount_usd is None else amount_nanousd(body.amount_usd)
    request_id = call.path("request_id")

    def change(conn: Connection) -> dict[str, Any]:
        made = operations.refund_request(
            conn, request_id, amount, reason=body.reason, idempotency_key=key, by=call.author
        )
        if made.team != call.team:
            raise NotFoundError(f"team {call.team!r} has no request {request_id!r}")
        return refund_record(made)

    return answer(await call.change(change))


async def list_statements(call: AdminCall) -> Response:
    paging = Paging.of(call.request)
    found = await call.read(lambda conn: operations.list_statements(conn, call.team, paging.page))
    return paging.answer(
        "statements", found, lambda each: each.period, lambda each: statement_record(each, call.now_ms)
    )


async def show_statement(call: AdminCall) -> Response:
    period = _month(call)
    statement, lines = await call.read(lambda conn: operations.show_statement(conn, call.team, period))
    record = statement_record(statement, call.now_ms)
    return answer(record | {"lines": [statement_line_record(line) for line in lines]})


async def pay(call: AdminCall) -> Response:
    key, body = call.idempotency_key(), await call.body(PayStatement)
    amount = None if body.amount_usd is None else amount_nanousd(body.amount_usd)
    payment = operations.NewPayment(_month(call), amount, body.note)
    made = await call.change(
        lambda conn: operations.pay_statement(conn, call.team, payment, idempotency_key=key, by=call.author)
    )
    return answer(payment_record(made))
