"""Suspensions, scopes, projects of requests, and the log of who did what."""

from __future__ import annotations

import inspect
import sqlite3
from dataclasses import replace

import pytest

from inferd.errors import AuthenticationError, InvalidValueError, NotFoundError, PermissionDeniedError
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.identity.authenticator import Caller, authenticate
from inferd.ledger.reports.records import log_record
from inferd.ledger.storage.schema import SCHEMA_VERSION

WHO = {"by": operations.Author("cli:test", 7)}
WHY = {**WHO, "reason": "x"}
POSTPAID = operations.TeamChange(tier=3, overage="postpaid")


@pytest.fixture
def key(books):
    """A key of ada's, in project search."""
    operations.create_member(books.conn, "project", "acme", "search", **WHO)
    operations.create_member(books.conn, "user", "acme", "ada", **WHO)
    return operations.create_key(books.conn, "acme", operations.KeyRequest(project="search", user="ada"), **WHO)


SUBJECTS = {"team": ("acme",), "project": ("acme", "search"), "user": ("acme", "ada"), "key": None}


@pytest.mark.parametrize("kind", SUBJECTS)
def test_what_is_suspended_is_refused_until_it_is_resumed(books, key, kind):
    """R9"""
    names = SUBJECTS[kind] or (key.id,)
    suspended = operations.suspend(books.conn, kind, names, reason="unpaid", **WHO)
    other = operations.Author("other", 9)
    assert operations.suspend(books.conn, kind, names, reason="again", by=other) == suspended
    with pytest.raises(PermissionDeniedError, match="is suspended") as refusal:
        authenticate(books.conn, key.key, 8)
    assert refusal.value.code == f"{kind}_suspended"
    assert "unpaid" not in refusal.value.message
    assert operations.resume(books.conn, kind, names, **WHO) == suspended
    assert operations.resume(books.conn, kind, names, **WHO) is None
    assert authenticate(books.conn, key.key, 8).team == "acme"
    assert [
        entry.action.partition(".")[2] for entry in operations.read_log(books.conn, operations.LogQuery(limit=2))
    ] == ["resume", "suspend"]


def test_other_keys_go_on(books, key):
    """R9"""
    operations.suspend(books.conn, "project", ("acme", "search"), **WHO)
    operations.suspend(books.conn, "user", ("acme", "ada"), **WHO)
    operations.suspend(books.conn, "key", (key.id,), **WHO)
    assert authenticate(books.conn, books.key.key, 8).project == "inference"
    with pytest.raises(PermissionDeniedError) as refusal:
        authenticate(books.conn, books.key.key, 8, "search")
    assert refusal.value.code == "project_suspended"


def test_a_revoked_key_is_401_even_if_its_team_is_suspended(books):
    """R21"""
    operations.suspend(books.conn, "team", ("acme",), **WHO)
    operations.revoke_key(books.conn, books.key.id, **WHO)
    with pytest.raises(AuthenticationError):
        authenticate(books.conn, books.key.key, 8)


def test_a_hold_of_a_suspended_team_settles(books):
    """R9"""
    books.grant(100)
    request_id = books.hold(1, 10)
    operations.suspend(books.conn, "team", ("acme",), **WHO)
    assert books.settle(request_id, 1, 4) == 5


@pytest.mark.parametrize(
    ("kind", "names"),
    [("team", ("nobody",)), ("project", ("acme", "nothing")), ("user", ("acme", "nobody")), ("key", ("0" * 12,))],
)
def test_what_does_not_exist_cannot_be_suspended(books, kind, names):
    with pytest.raises(NotFoundError):
        operations.suspend(books.conn, kind, names, **WHO)


def test_the_header_chooses_the_project(books):
    """R9"""
    operations.create_member(books.conn, "project", "acme", "search", **WHO)
    assert authenticate(books.conn, books.key.key, 1, "search").project == "search"
    assert authenticate(books.conn, books.key.key, 1, "acme/search").project == "search"
    assert authenticate(books.conn, books.key.key, 1).project == "inference"


@pytest.mark.parametrize("wanted", ["nothing", "other/search", "other/inference", "nobody/search", "/search", "acme/"])
def test_a_project_that_is_unknown_or_another_team_s_is_refused_alike(books, wanted):
    """R9"""
    operations.create_member(books.conn, "project", "acme", "search", **WHO)
    operations.create_team(books.conn, "other", **WHO)
    with pytest.raises(PermissionDeniedError) as refusal:
        authenticate(books.conn, books.key.key, 1, wanted)
    assert refusal.value.message == f"Your team has no project `{wanted}`."
    assert refusal.value.code == "invalid_project"


def test_a_bound_key_works_in_its_project_only(books, key):
    """R9"""
    assert authenticate(books.conn, key.key, 1, "search").project == "search"
    assert authenticate(books.conn, key.key, 1, "acme/search").project == "search"
    for wanted in ("inference", "other/search"):
        with pytest.raises(PermissionDeniedError) as refusal:
            authenticate(books.conn, key.key, 1, wanted)
        assert refusal.value.code == "invalid_project"


def test_a_key_has_the_scopes_and_models_it_was_made_with(books):
    """R21"""
    made = operations.create_key(
        books.conn, "acme", operations.KeyRequest(scopes=("admin", "inference"), models=("a/b", "a/b")), **WHO
    )
    caller = authenticate(books.conn, made.key, 1)
    assert (caller.scopes, caller.models) == (("inference", "admin"), ("a/b",))
    assert caller.may_use("a/b")
    assert not caller.may_use("a/c")
    default = authenticate(books.conn, books.key.key, 1)
    assert (default.scopes, default.models) == (("inference", "usage"), None)
    assert default.may_use("a/c")


def test_admin_includes_usage_and_manage_but_no_calls(books):
    """R21"""
    made = operations.create_key(books.conn, "acme", operations.KeyRequest(scopes=("admin",)), **WHO)
    caller = authenticate(books.conn, made.key, 1)
    assert [caller.has_scope(scope) for scope in ("usage", "manage", "admin", "inference")] == [True, True, True, False]
    manager = authenticate(
        books.conn, operations.create_key(books.conn, "acme", operations.KeyRequest(scopes=("manage",)), **WHO).key, 1
    )
    assert [manager.has_scope(scope) for scope in ("usage", "manage", "admin")] == [False, True, False]


@pytest.mark.parametrize("wrong", [{"scopes": ()}, {"scopes": ("root",)}, {"models": ()}, {"models": ("",)}])
def test_scopes_and_models_that_make_no_sense_are_refused(books, wrong):
    with pytest.raises(InvalidValueError):
        operations.create_key(books.conn, "acme", operations.KeyRequest(**wrong), **WHO)


def test_each_change_is_in_the_log_with_who_what_and_when(books):
    """R9"""
    made = operations.create_key(
        books.conn, "acme", operations.KeyRequest(label="laptop"), by=operations.Author("cli:ada", 5)
    )
    newest, *_ = operations.read_log(books.conn, operations.LogQuery())
    assert log_record(newest) == {
        "seq": newest.seq,
        "at": "1970-01-01T00:00:00.005Z",
        "actor": "cli:ada",
        "action": "keys.create",
        "team": "acme",
        "details": {"key_id": made.id, "label": "laptop", "scopes": ["inference", "usage"]},
    }
    assert made.key not in "".join(books.dump())


def test_a_repetition_that_changes_nothing_is_not_in_the_log(books):
    """R22"""
    books.grant(5, idempotency_key="k")
    before = operations.read_log(books.conn, operations.LogQuery())
    books.grant(5, idempotency_key="k")
    assert operations.read_log(books.conn, operations.LogQuery()) == before


def test_a_change_that_is_undone_leaves_no_entry(books):
    before = operations.read_log(books.conn, operations.LogQuery())
    with pytest.raises(NotFoundError):
        operations.create_member(books.conn, "project", "nobody", "x", **WHO)
    assert operations.read_log(books.conn, operations.LogQuery()) == before


def test_the_log_is_read_by_team_actor_action_time_and_page(books):
    operations.create_team(books.conn, "lab", by=operations.Author("cli:bob", books.now_ms + 1))
    books.grant(5)
    conn = books.conn
    assert {entry.team for entry in operations.read_log(conn, operations.LogQuery(team="lab"))} == {"lab"}
    assert [entry.action for entry in operations.read_log(conn, operations.LogQuery(actor="cli:bob"))] == [
        "teams.create"
    ]
    assert [entry.action for entry in operations.read_log(conn, operations.LogQuery(action="credits"))] == [
        "credits.grant"
    ]
    assert [entry.action for entry in operations.read_log(conn, operations.LogQuery(action="credits.grant"))] == [
        "credits.grant"
    ]
    assert (
        operations.read_log(conn, operations.LogQuery(action="credits.gran"))
        == operations.read_log(conn, operations.LogQuery(action="%"))
        == []
    )
    assert [entry.team for entry in operations.read_log(conn, operations.LogQuery(since_ms=books.now_ms + 1))] == [
        "lab"
    ]
    assert "lab" not in {
        entry.team for entry in operations.read_log(conn, operations.LogQuery(until_ms=books.now_ms + 1))
    }
    everything = operations.read_log(conn, operations.LogQuery())
    first = operations.read_log(conn, operations.LogQuery(limit=2))
    assert first + operations.read_log(conn, operations.LogQuery(before_seq=first[-1].seq)) == everything
    with pytest.raises(InvalidValueError):
        operations.read_log(conn, operations.LogQuery(limit=0))
    with pytest.raises(NotFoundError):
        operations.read_log(conn, operations.LogQuery(team="nobody"))


# Operation -> its action in the log, and a call that changes something. In this order: some need the rows of others.
CHANGES = {
    "create_team": ("teams.create", lambda books: operations.create_team(books.conn, "lab", **WHO)),
    "set_team": (
        "teams.set",
        lambda books: operations.set_team(books.conn, "acme", POSTPAID, **WHO),
    ),
    "create_member": ("users.create", lambda books: operations.create_member(books.conn, "user", "acme", "ada", **WHO)),
    "make_named_user": (
        "users.create",
        lambda books: operations.make_named_user(books.conn, "acme", "bob@lab.org", **WHO),
    ),
    "set_concurrency": (
        "users.set",
        lambda books: operations.set_concurrency(books.conn, "user", "acme", "ada", 5, **WHO),
    ),
    "suspend": ("users.suspend", lambda books: operations.suspend(books.conn, "user", ("acme", "ada"), **WHO)),
    "resume": ("users.resume", lambda books: operations.resume(books.conn, "user", ("acme", "ada"), **WHO)),
    "create_key": ("keys.create", lambda books: operations.create_key(books.conn, "acme", **WHO)),
    "revoke_key": ("keys.revoke", lambda books: operations.revoke_key(books.conn, new_key(books).id, **WHO)),
    "refund_request": ("credits.refund", lambda books: operations.refund_request(books.conn, owed(books), 1, **WHY)),
    "pay_statement": (
        "statements.pay",
        lambda books: operations.pay_statement(books.conn, "acme", operations.NewPayment("2026-11", 1), **WHO),
    ),
    "grant_credit": (
        "credits.grant",
        lambda books: operations.grant_credit(books.conn, "acme", operations.NewGrant(9), **WHO),
    ),
    "withdraw_credit": (
        "credits.withdraw",
        lambda books: operations.withdraw_credit(books.conn, "acme", 1, reason="x", **WHO),
    ),
    "void_grant": ("credits.void", lambda books: operations.void_grant(books.conn, 1, reason="x", **WHO)),
    "set_budget": ("budgets.set", lambda books: operations.set_budget(books.conn, "acme", 10**9, **WHO)),
    "remove_budget": ("budgets.remove", lambda books: operations.remove_budget(books.conn, "acme", **WHO)),
    "raise_caps": (
        "budgets.raise",
        lambda books: operations.raise_caps(books.conn, "acme", operations.NewRaise(1, 8, "x"), **WHO),
    ),
    "apply_plans": ("plans.apply", lambda books: operations.apply_plans(books.conn, other_catalog(books), **WHO)),
    "create_file": (
        "files.create",
        lambda books: operations.create_file(books.conn, owner(books), operations.NewFile("file-1", "a", 1), **WHO),
    ),
    "create_batch": (
        "batches.create",
        lambda books: operations.create_batch(books.conn, owner(books), operations.NewBatch("/v1/x", "file-1"), **WHO),
    ),
    "cancel_batch": ("batches.cancel", lambda books: operations.cancel_batch(books.conn, only_batch(books), **WHO)),
    "delete_file": (
        "files.delete",
        lambda books: operations.delete_file(books.conn, "acme", "inference", unread_file(books), **WHO),
    ),
}


def new_key(books):
    return operations.create_key(books.conn, "acme", **WHO)


def owed(books):
    """A request that a postpaid team owes."""
    request = books.hold(5)
    books.settle(request, 5)
    return request


def other_catalog(books):
    catalog = operations.show_plans(books.conn)
    return replace(catalog, alerts=replace(catalog.alerts, low_balance_percent=7))


def owner(books):
    return Caller("acme", "inference", None, books.key.id, "academic")


def only_batch(books):
    return books.one("SELECT batch_id FROM batches")


def unread_file(books):
    operations.create_file(books.conn, owner(books), operations.NewFile("file-2", "b", 1), **WHO)
    return "file-2"


def test_operation_with_an_author_that_changes_something_writes_its_log_entry(books):
    """The actions of the log are those of all operations that take an author."""
    writing = {
        name
        for name, function in inspect.getmembers(operations, inspect.isfunction)
        if "by" in inspect.signature(function).parameters
    }
    assert writing == {"ensure_default_team", *CHANGES}
    for name, (action, change) in CHANGES.items():
        before = operations.read_log(books.conn, operations.LogQuery(limit=1))[0].seq
        change(books)
        newest = operations.read_log(books.conn, operations.LogQuery(limit=1))[0]
        assert newest.seq > before, name
        assert newest.action == action
        assert newest.actor == WHO["by"].actor


def test_the_first_team_is_logged_too(store):
    with store.immediate() as conn:
        operations.ensure_default_team(conn, by=operations.Author("cli:serve", 1))
        assert [(entry.action, entry.team) for entry in operations.read_log(conn, operations.LogQuery())] == [
            ("keys.create", "default"),
            ("teams.create", "default"),
        ]


@pytest.mark.parametrize(
    ("sql", "table", "row"),
    [
        ("DELETE FROM log WHERE seq = 3", "log", "3"),
        ("UPDATE log SET actor = 'nobody' WHERE seq = 3", "log", "3"),
        ("DELETE FROM suspensions", "suspensions", "team:acme"),
        ("UPDATE suspensions SET suspended_by = 'x'", "suspensions", "team:acme"),
        ("UPDATE suspensions SET authority = 'team'", "suspensions", "team:acme"),
        ("INSERT INTO suspensions VALUES ('key:x', 'team', 'acme', NULL, 1, 'x')", "suspensions", "key:x"),
        ("UPDATE keys SET scopes = 'admin'", "keys", None),
        ("UPDATE keys SET models = '[]'", "keys", None),
    ],
)
def test_the_audit_names_what_was_changed_behind_its_back(books, sql, table, row):
    operations.suspend(books.conn, "team", ("acme",), **WHO)
    books.grant(5)
    before = books.dump()
    for (trigger,) in books.conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        books.conn.execute(f"DROP TRIGGER {trigger}")
    books.conn.execute(sql)
    found = {(finding.table, finding.row) for finding in audit(books.conn).findings}
    assert (table, books.key.id if row is None else row) in found
    restore(books, before)


def restore(books, dump):
    """As it was, for the fixture audits at the end."""
    books.conn = sqlite3.connect(":memory:", isolation_level=None)
    books.conn.executescript("\n".join(dump))
    books.conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def test_the_log_and_suspensions_refuse_raw_changes(books):
    operations.suspend(books.conn, "team", ("acme",), **WHO)
    for sql in ("UPDATE log SET actor = 'x'", "DELETE FROM log", "UPDATE suspensions SET reason = 'x'"):
        with pytest.raises(sqlite3.IntegrityError):
            books.conn.execute(sql)
    operations.resume(books.conn, "team", ("acme",), **WHO)
