"""A ledger in which every setting was changed, for comparison with its audit log."""

from __future__ import annotations

import pytest

from inferd.ledger import operations
from inferd.ledger.maintenance.retention import RollUpUsage
from tests.ledger.books import memory_books
from tests.ledger.every_record import move_everything


@pytest.fixture(scope="module")
def set_books():
    """A team on other terms than it began with, a key that was revoked, a row of every numbered table."""
    books = memory_books()
    books.conn.execute("PRAGMA foreign_keys = OFF")
    who = {"by": operations.Author("test", books.now_ms)}
    books.grant(100)
    books.settle(books.hold(1, 1), 1, 1)
    books.apply(RollUpUsage(books.now_ms + 1, books.now_ms))
    move_everything(books)
    operations.create_member(books.conn, "user", "acme", "ada", **who)
    operations.set_concurrency(books.conn, "user", "acme", "ada", 5, **who)
    operations.set_concurrency(books.conn, "user", "acme", "ada", None, **who)
    operations.set_team(books.conn, "acme", operations.TeamChange(tier=3), **who)
    operations.set_team(
        books.conn, "acme", operations.TeamChange(plan="pro", tier=2, tier_until_ms=books.now_ms + 9), **who
    )
    operations.set_team(books.conn, "acme", operations.TeamChange(payment_method=True), **who)
    operations.revoke_key(books.conn, operations.create_key(books.conn, "acme", **who).id, **who)
    operations.create_team(books.conn, "idle", **who)
    use_every_verb(books)
    operations.suspend(books.conn, "team", ("idle",), **who)
    books.assert_clean()
    yield books
    books.conn.close()


def use_every_verb(books):
    """Each under an idempotency key of its own."""

    def who(verb):
        return {"idempotency_key": f"{verb}-1", "by": operations.Author("test", books.now_ms)}

    grant = operations.grant_credit(books.conn, "acme", operations.NewGrant(100), **who("grant"))
    request = books.hold(100)
    books.settle(request, 100)
    operations.refund_request(books.conn, request, 90, reason="x", **who("refund"))
    operations.pay_statement(books.conn, "acme", operations.NewPayment("2026-11", 1), **who("pay"))
    books.grant(1_000)
    operations.withdraw_credit(books.conn, "acme", 1, reason="x", **who("withdraw"))
    operations.void_grant(books.conn, grant.grant_id, reason="x", **who("void"))
    operations.raise_caps(
        books.conn, "acme", operations.NewRaise(1, until_ms=books.now_ms + 1, reason="x"), **who("raise")
    )


@pytest.fixture
def set_ledger(set_books):
    """The same books for each test, which are as before afterwards."""
    set_books.conn.execute("SAVEPOINT before")
    yield set_books
    set_books.conn.execute("ROLLBACK TO before")
    set_books.conn.execute("RELEASE before")
