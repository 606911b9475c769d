"""The statements of a request use indexes, whatever the size of the ledger."""

from __future__ import annotations

from inferd.attribution import Attribution
from inferd.ledger import operations
from inferd.ledger.identity.authenticator import authenticate, name_user, recall
from inferd.ledger.reports.listings import key_status
from inferd.ledger.requests.holds import AlertRefusal
from inferd.ledger.requests.usage import RecordFree
from inferd.ledger.terms.limits import team_limits
from inferd.usage import Usage

# Tables that are read whole: one row of the first is read, from its end; the others have one row.
SHORT = {"SCAN catalogs", "SCAN clock", "SCAN terms"}
QUERIES = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


def statements_of_a_request(books):
    """All SQL from the key to the settlement, with budgets of every kind, alerts, refusals, and `GET /v1/key`."""
    who = {"by": operations.Author("test", books.now_ms)}
    operations.create_member(books.conn, "user", "acme", "ada", **who)
    books.grant(10_000)
    books.grant(10_000, expires_at_ms=books.now_ms + 10**9)
    for own in ({"project": "inference"}, {"user": "ada"}, {"key_id": books.key.id}, {}):
        for period in ("day", "week", "month", "year", "lifetime"):
            for unit in ("usd", "tokens", "compute_ms"):
                owner = operations.BudgetOwner(**own, unit=unit)
                operations.set_budget(books.conn, "acme", 1_000 if unit == "usd" else 10_000, period, owner, **who)
    found = []
    books.conn.set_trace_callback(found.append)
    caller = authenticate(books.conn, books.key.key, books.now_ms, "inference")
    for name in ("ada", "ada@example.org"):
        name_user(books.conn, caller, name)
    recall(books.conn, books.key.id, books.now_ms, "inference", "ada")
    team_limits(books.conn, "acme", books.now_ms, project="inference", user="ada")
    books.settle(books.hold(10, 10, user="ada", max_compute_ms=60), 10, 10)
    books.apply(books.void(books.hold(10, 10, user="ada", max_compute_ms=60)))
    books.settle(books.hold(400, 400, user="ada", max_compute_ms=60), 400, 400)
    books.settle(books.hold(10, 10, user="ada", price=None, max_compute_ms=60), 10, 10)
    books.apply(AlertRefusal(books.open_hold(2_000, user="ada", max_compute_ms=60)))
    attribution = Attribution("acme", "inference", None, books.key.id, "local/free", "default")
    books.apply(RecordFree("req-free", attribution, Usage(), "completed", books.now_ms, books.now_ms))
    key_status(books.conn, caller, now_ms=books.now_ms)
    books.conn.set_trace_callback(None)
    return [sql for sql in dict.fromkeys(found) if sql.startswith(QUERIES)]


def test_statements_of_a_request_scan_no_table(books):
    """R7: however many requests, teams and alerts there were before."""
    statements = statements_of_a_request(books)
    assert len(statements) > 40
    scans = {
        plan
        for sql in statements
        for *_, plan in books.conn.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
        if plan.startswith("SCAN") and "CONSTANT ROW" not in plan
    }
    assert scans == SHORT
