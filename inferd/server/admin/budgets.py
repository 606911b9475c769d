"""Budgets of a team and what belongs to it, and raises of its caps."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.identity import delegation
from inferd.ledger.storage.client import Connection
from inferd.ledger.terms.budgets import Budget
from inferd.plans import PeriodKind
from inferd.server.admin.call import amount_nanousd, answer, operator_call, team_call
from inferd.server.admin.paging import Paging


class BudgetOf(msgspec.Struct, forbid_unknown_fields=True):
    """Of the team, or of one project, user or key (its id)."""

    period: PeriodKind = "month"
    project: str | None = None
    user: str | None = None
    key: str | None = None


class NewBudget(BudgetOf, kw_only=True):
    amount_usd: str


class NewRaise(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    amount_usd: str
    until: str
    reason: str
    from_: str | None = None


async def list_budgets(request: Request) -> Response:
    call, paging = team_call(request), Paging.of(request)
    found = await call.read(lambda conn: operations.list_budgets(conn, call.team, paging.page))
    return paging.answer("budgets", found, lambda budget: budget.name, lambda budget: budget.to_json())


async def set_budget(request: Request) -> Response:
    call = team_call(request)
    body = await call.body(NewBudget)
    amount = amount_nanousd(body.amount_usd)

    def change(conn: Connection) -> dict[str, Any]:
        if not call.is_operator:
            delegation.check_budget(call.manager(conn), body.key)
        return operations.set_budget(
            conn,
            call.team,
            amount,
            body.period,
            project=body.project,
            user=body.user,
            key_id=body.key,
            actor=call.actor,
            now_ms=call.now_ms,
        ).to_json()

    return answer(await call.change(change))


async def remove_budget(request: Request) -> Response:
    call = team_call(request)
    body = await call.body(BudgetOf)

    def change(conn: Connection) -> Budget:
        if not call.is_operator:
            delegation.check_budget(call.manager(conn), body.key)
        return operations.remove_budget(
            conn,
            call.team,
            body.period,
            project=body.project,
            user=body.user,
            key_id=body.key,
            actor=call.actor,
            now_ms=call.now_ms,
        )

    removed = await call.change(change)
    return answer({"removed": removed.scope, "period": removed.period})


async def raise_caps(request: Request) -> Response:
    call = operator_call(request)
    key, body = call.idempotency_key(), await call.body(NewRaise)
    amount, until_ms = amount_nanousd(body.amount_usd), parse_instant_ms(body.until)
    from_ms = None if body.from_ is None else parse_instant_ms(body.from_)
    made = await call.change(
        lambda conn: operations.raise_caps(
            conn,
            call.team,
            amount,
            until_ms=until_ms,
            from_ms=from_ms,
            reason=body.reason,
            idempotency_key=key,
            actor=call.actor,
            now_ms=call.now_ms,
        )
    )
    return answer(made.to_json())
