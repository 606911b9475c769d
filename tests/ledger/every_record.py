"""A ledger with every kind of transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inferd.ledger import operations
from inferd.plans import SHIPPED
from tests.ledger.books import Books


def move_everything(books: Books) -> dict[str, Any]:
    """Team acme becomes postpaid, spends 100 of credit and 300 it owes, is refunded 25, pays 30; 50 are granted, 10
    withdrawn of them, 40 voided.

    Returns ids: of `request`, `refund`, `payment`, `withdrawal` (transactions), `void` (grant).
    """
    who: Any = {"by": operations.Author("test", books.now_ms)}
    operations.set_team(books.conn, "acme", operations.TeamChange(overage="postpaid"), **who)
    operations.set_budget(books.conn, "acme", 500, "month", operations.BudgetOwner(project="inference"), **who)
    operations.raise_caps(books.conn, "acme", operations.NewRaise(7, until_ms=books.now_ms + 1, reason="a fair"), **who)
    course = replace(SHIPPED.plans["academic"], name="course")
    operations.apply_plans(books.conn, replace(SHIPPED, plans={**SHIPPED.plans, "course": course}), **who)
    operations.set_concurrency(books.conn, "project", "acme", "inference", 8, **who)
    books.grant(100)
    request = books.hold(100, 300)
    books.settle(request, 100, 300)
    refund = operations.refund_request(books.conn, request, 25, reason="bad answer", **who)
    month = "2026-11"
    payment = operations.pay_statement(books.conn, "acme", operations.NewPayment(month, 30, note="wire"), **who)
    grant = books.grant(50)
    withdrawal = operations.withdraw_credit(books.conn, "acme", 10, reason="asked for", **who)
    void = operations.void_grant(books.conn, grant.grant_id, reason="by mistake", **who)
    return {
        "request": request,
        "refund": refund.txn,
        "payment": payment.txn,
        "withdrawal": withdrawal.txn,
        "void": void.grant_id,
    }
