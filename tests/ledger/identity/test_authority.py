"""Only the operator loosens settings of the operator; a team may be stricter with itself (BILLING R21)."""

from __future__ import annotations

import pytest

from inferd.errors import InsufficientCreditError, InvalidValueError, NotFoundError, PermissionDeniedError
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.identity.authenticator import authenticate
from inferd.ledger.identity.authority import authority_of
from inferd.ledger.identity.suspensions import is_suspended
from inferd.ledger.storage.paging import Page
from inferd.ledger.storage.rows import checksum
from inferd.ledger.terms.budgets import budgets_of
from inferd.subjects import key_subject
from tests.ledger.audit.test_run import tamper
from tests.ledger.terms.test_caps import DEAR

OPERATOR = {"by": operations.Author("cli:test", 7)}


@pytest.fixture
def team(books):
    """As whom a key with the scope `manage` of acme acts."""
    key = operations.create_key(books.conn, "acme", operations.KeyRequest(scopes=("inference", "manage")), **OPERATOR)
    return {"by": operations.Author(f"key:{key.id}", 8)}


def test_authority_of_an_actor_is_the_team_s_only_for_a_key_of_it_without_admin(books, team):
    conn = books.conn
    operations.create_team(conn, "lab", **OPERATOR)
    admin = operations.create_key(conn, "acme", operations.KeyRequest(scopes=("manage", "admin")), **OPERATOR)
    actors = {
        team["by"].actor: "team",
        f"key:{admin.id}": "operator",
        "key:unknown": "operator",
        "cli:alice": "operator",
        "inferd": "operator",
    }
    assert {actor: authority_of(conn, "acme", actor) for actor in actors} == actors
    assert authority_of(conn, "lab", team["by"].actor) == "operator"


SUBJECTS = ("project", "user", "key")


@pytest.fixture
def names(books):
    operations.create_member(books.conn, "user", "acme", "ada", **OPERATOR)
    return {"project": ("acme", "inference"), "user": ("acme", "ada"), "key": (books.key.id,)}


@pytest.mark.parametrize("first", ["team", "operator"])
@pytest.mark.parametrize("kind", SUBJECTS)
def test_suspension_by_the_operator_holds_whichever_came_first(books, team, names, kind, first):
    conn, subject = books.conn, names[kind]
    for who in (team, OPERATOR) if first == "team" else (OPERATOR, team):
        operations.suspend(conn, kind, subject, **who)
    with pytest.raises(PermissionDeniedError, match="operator suspended it"):
        operations.resume(conn, kind, subject, **team)
    assert operations.resume(conn, kind, subject, **OPERATOR).authority == "operator"
    ended = operations.resume(conn, kind, subject, **team)
    assert (ended.authority, ended.suspended_by) == ("team", team["by"].actor)
    assert not is_suspended(books.conn, ended.subject)


def test_suspension_by_both_refuses_requests_until_both_have_ended(books, team):
    operations.suspend(books.conn, "key", (books.key.id,), **team)
    operations.suspend(books.conn, "key", (books.key.id,), **OPERATOR)
    for _ in range(2):
        with pytest.raises(PermissionDeniedError):
            authenticate(books.conn, books.key.key, 9)
        operations.resume(books.conn, "key", (books.key.id,), **OPERATOR)
    assert authenticate(books.conn, books.key.key, 9).team == "acme"


def test_suspension_of_the_team_is_ended_by_an_operator_who_has_none(books, team):
    operations.suspend(books.conn, "key", (books.key.id,), **team)
    assert operations.resume(books.conn, "key", (books.key.id,), **OPERATOR).authority == "team"
    assert not is_suspended(books.conn, key_subject(books.key.id))


OWNERS = [{}, {"project": "inference"}, {"user": "ada"}, {"key_id": True}]


@pytest.mark.parametrize("owner", OWNERS, ids=["team", "project", "user", "key"])
@pytest.mark.parametrize("period", ["month", "year", "lifetime"])
def test_budget_of_the_operator_is_neither_removed_nor_raised_by_the_team(books, team, names, owner, period):
    """R7"""
    conn = books.conn
    owner = operations.BudgetOwner(**({"key_id": books.key.id} if "key_id" in owner else owner))
    operator_s = operations.set_budget(conn, "acme", 10, period, owner, **OPERATOR)
    with pytest.raises(PermissionDeniedError, match="operator set this budget"):
        operations.remove_budget(conn, "acme", period, owner, **team)
    with pytest.raises(PermissionDeniedError, match="is more"):
        operations.set_budget(conn, "acme", 11, period, owner, **team)
    stricter = operations.set_budget(conn, "acme", 4, period, owner, **team)
    assert operations.list_budgets(conn, "acme") == [operator_s, stricter]
    assert operations.remove_budget(conn, "acme", period, owner, **team) == stricter
    assert operations.list_budgets(conn, "acme") == [operator_s]
    operations.remove_budget(conn, "acme", period, owner, **OPERATOR)


def test_budget_of_the_team_is_its_own_to_raise_and_remove(books, team):
    """R7"""
    operations.set_budget(books.conn, "acme", 4, **team)
    operations.set_budget(books.conn, "acme", 40, **team)
    operations.remove_budget(books.conn, "acme", **team)
    with pytest.raises(NotFoundError):
        operations.remove_budget(books.conn, "acme", **team)


def test_budget_of_the_operator_replaces_none_of_the_team(books, team):
    """R7: of two, the smaller one is in effect, and the operator removes its own first."""
    conn = books.conn
    books.grant(10**12)
    operations.set_budget(conn, "acme", 2, **team)
    operations.set_budget(conn, "acme", 10**9, **OPERATOR)
    with pytest.raises(InsufficientCreditError, match="Team 'acme' set this budget itself") as refusal:
        books.hold(1, 0, price=DEAR)
    assert refusal.value.code == "team_spend_limit_exceeded"
    assert operations.remove_budget(conn, "acme", **OPERATOR).amount == 10**9
    assert operations.remove_budget(conn, "acme", **OPERATOR).authority == "team"


def test_budget_s_alert_is_written_for_each_authority(books, team):
    """R7"""
    books.grant(1_000)
    operations.set_budget(books.conn, "acme", 100, **OPERATOR)
    operations.set_budget(books.conn, "acme", 10, **team)
    books.settle(books.hold(6), 6)
    assert alerts(books) == [("team_budget", 50)]
    operations.remove_budget(books.conn, "acme", **team)
    books.settle(books.hold(50), 50)
    assert alerts(books) == [("team_budget", 50), ("budget", 50)]


def alerts(books):
    return books.conn.execute("SELECT source, threshold_percent FROM alerts ORDER BY alert_id").fetchall()


def test_budgets_of_both_come_in_pages_each_once(books, team):
    for who in (OPERATOR, team):
        for period in ("month", "year"):
            operations.set_budget(books.conn, "acme", 5, period, **who)
    after, found = None, []
    while page := budgets_of(books.conn, "acme", Page(after, 1)):
        found += page
        after = page[-1].name
    assert [budget.name for budget in found] == [
        f"team:acme/{period}/{authority}" for period in ("month", "year") for authority in ("operator", "team")
    ]


def overage(books, *, by, **change):
    terms = operations.set_team(books.conn, "acme", operations.TeamChange(**change), by=by)
    return terms.overage, terms.overage_source


def test_overage_that_the_operator_set_is_not_made_postpaid_by_the_team(books, team):
    """R6"""
    for choice in ("block", "contact"):
        overage(books, overage=choice, **OPERATOR)
        books.conn.execute("SAVEPOINT refused")
        with pytest.raises(PermissionDeniedError, match=f"`{choice}` \\(set by the operator\\)"):
            overage(books, overage="postpaid", **team)
        books.conn.execute("ROLLBACK TO refused")
        books.conn.execute("RELEASE refused")
    assert overage(books, overage="postpaid", **OPERATOR) == ("postpaid", "set by the operator")
    assert overage(books, overage="block", **team) == ("block", "chosen by the team")
    assert overage(books, overage="postpaid", **team) == ("postpaid", "chosen by the team")


def test_overage_of_the_plan_is_loosened_by_the_team_unless_it_says_contact(books, team):
    """R6"""
    assert overage(books, overage="postpaid", **team) == ("postpaid", "chosen by the team")
    assert overage(books, plan="enterprise", **OPERATOR) == ("contact", "plan enterprise")
    books.conn.execute("SAVEPOINT refused")
    with pytest.raises(PermissionDeniedError, match="plan enterprise"):
        overage(books, overage="postpaid", **team)
    books.conn.execute("ROLLBACK TO refused")
    books.conn.execute("RELEASE refused")
    assert overage(books, overage="block", **team) == ("block", "chosen by the team")


def test_overage_that_the_operator_sets_ends_the_team_s_choice(books, team):
    """R6"""
    overage(books, overage="postpaid", **team)
    assert overage(books, overage="block", **OPERATOR) == ("block", "set by the operator")
    overage(books, overage="postpaid", **OPERATOR)
    overage(books, overage="block", **team)
    assert overage(books, overage="postpaid", **OPERATOR) == ("postpaid", "set by the operator")


def test_overage_that_needs_a_payment_method_needs_it_for_a_team_too(books, team):
    """R6"""
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="free", tier=1), **OPERATOR)
    books.conn.execute("SAVEPOINT refused")
    with pytest.raises(InvalidValueError, match="payment method"):
        overage(books, overage="postpaid", **team)
    books.conn.execute("ROLLBACK TO refused")
    books.conn.execute("RELEASE refused")
    operations.set_team(books.conn, "acme", operations.TeamChange(payment_method=True), **OPERATOR)
    assert overage(books, overage="postpaid", **team) == ("postpaid", "chosen by the team")


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("UPDATE suspensions SET authority = 'team'", "suspensions"),
        ("UPDATE budgets SET authority = 'team'", "budgets"),
        ("UPDATE billing SET team_overage = NULL", "billing"),
        ("UPDATE billing SET team_overage = NULL, overage = 'block'", "billing"),
    ],
)
def test_authority_that_was_changed_is_found_though_the_checksum_fits(books, team, sql, table):
    conn = books.conn
    operations.suspend(conn, "key", (books.key.id,), **OPERATOR)
    operations.set_budget(conn, "acme", 5, **OPERATOR)
    overage(books, overage="block", **team)
    assert audit(conn).clean
    conn.execute("SAVEPOINT before")
    tamper(books, sql)
    if table != "suspensions":
        from inferd.ledger.storage.rows import FORMATS

        values = conn.execute(f"SELECT {', '.join(FORMATS[table].covered)} FROM {table}").fetchone()
        conn.execute(f"UPDATE {table} SET checksum = ?", (checksum(table, values),))
    assert {finding.table for finding in audit(conn).findings} == {table}
    conn.execute("ROLLBACK TO before")
    conn.execute("RELEASE before")
