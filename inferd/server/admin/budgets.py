"""Budgets of a team, its members and keys, and raises of its caps."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from inferd.errors import InvalidRequestError
from inferd.instants import parse_instant_ms
from inferd.ledger import Connection, operations
from inferd.ledger.identity import delegation
from inferd.ledger.reports import budget_record, raise_record
from inferd.ledger.terms import Budget, Each
from inferd.plans import PeriodKind, Unit
from inferd.server.admin.call import AdminCall, amount_nanousd, answer
from inferd.server.admin.paging import Paging


class BudgetOf(msgspec.Struct, forbid_unknown_fields=True):
    """Budget of the team, of one project, user or key (its id), or of each project, user or key."""

    period: PeriodKind = "month"
    project: str | None = None
    user: str | None = None
    key: str | None = None
    each: Each | None = None
    unit: Unit = "usd"

    def owner(self) -> operations.BudgetOwner:
        """Return the owner for the ledger's operations."""
        return operations.BudgetOwner(self.project, self.user, self.key, self.each, self.unit)


class NewBudget(BudgetOf, kw_only=True):
    """Budget of `amount_usd`, or of `amount` tokens or milliseconds of compute, as `unit` says."""

    amount_usd: str | None = None
    amount: int | None = None

    def amount_in_unit(self) -> int:
        """Return the amount, of USD in nano-USD. Raises InvalidRequestError unless the one that `unit` needs is given
        alone."""
        in_usd = self.unit == "usd"
        needed, other = ("amount_usd", "amount") if in_usd else ("amount", "amount_usd")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise InvalidRequestError(
                f"A budget of unit '{self.unit}' needs '{needed}' and no '{other}'.", param=needed, code="invalid_value"
            )
        return amount_nanousd(self.amount_usd or "") if in_usd else (self.amount or 0)


class NewRaise(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    amount_usd: str
    until: str
    reason: str
    from_: str | None = None


async def list_budgets(call: AdminCall) -> Response:
    paging = Paging.of(call.request)
    found = await call.read(lambda conn: operations.list_budgets(conn, call.team, paging.page))
    return paging.answer("budgets", found, lambda budget: budget.name, budget_record)


async def set_budget(call: AdminCall) -> Response:
    body = await call.body(NewBudget)
    amount = body.amount_in_unit()

    def change(conn: Connection) -> Budget:
        if not call.is_operator:
            delegation.check_budget(call.manager(conn), body.key)
        return operations.set_budget(conn, call.team, amount, body.period, body.owner(), by=call.author)

    return answer(budget_record(await call.change(change)))


async def remove_budget(call: AdminCall) -> Response:
    body = await call.body(BudgetOf)

    def change(conn: Connection) -> Budget:
        if not call.is_operator:
            delegation.check_budget(call.manager(conn), body.key)
        return operations.remove_budget(conn, call.team, body.period, body.owner(), by=call.author)

    removed = await call.change(change)
    return answer({"removed": removed.scope, "period": removed.period, "unit": removed.unit})


async def raise_caps(call: AdminCall) -> Response:
    key, body = call.idempotency_key(), await call.body(NewRaise)
    new = operations.NewRaise(
        amount_nanousd(body.amount_usd),
        until_ms=parse_instant_ms(body.until),
        from_ms=None if body.from_ is None else parse_instant_ms(body.from_),
        reason=body.reason,
    )
    made = await call.change(
        lambda conn: operations.raise_caps(conn, call.team, new, idempotency_key=key, by=call.author)
    )
    return answer(raise_record(made))
