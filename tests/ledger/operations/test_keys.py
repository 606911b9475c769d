"""Suspensions, scopes, projects of requests, and the log of who did what."""

from __future__ import annotations

import inspect
import sqlite3

import pytest

from inferd.errors import AuthenticationError, InvalidValueError, NotFoundError, PermissionDeniedError
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.identity.keys import authenticate
from inferd.ledger.operations import read_log
from inferd.ledger.storage.schema import SCHEMA_VERSION

WHO = {"actor": "cli:test", "now_ms": 7}


@pytest.fixture
def key(books):
    """A key of ada's, in project search."""
    operations.create_project(books.conn, "acme", "search", **WHO)
    operations.create_user(books.conn, "acme", "ada", **WHO)
    return operations.create_key(books.conn, "acme", project="search", user="ada", **WHO)


SUBJECTS = {
    "team": ((operations.suspend_team, operations.resume_team), ("acme",)),
    "project": ((operations.suspend_project, operations.resume_project), ("acme", "search")),
    "user": ((operations.suspend_user, operations.resume_user), ("acme", "ada")),
    "key": ((operations.suspend_key, operations.resume_key), ()),
}


@pytest.mark.parametrize("kind", SUBJECTS)
def test_what_is_suspended_is_refused_until_it_is_resumed(books, key, kind):
    """R9"""
    (suspend, resume), names = SUBJECTS[kind]
    names = names or (key.id,)
    suspended = suspend(books.conn, *names, reason="unpaid", **WHO)
    assert suspend(books.conn, *names, reason="again", actor="other", now_ms=9) == suspended
    with pytest.raises(PermissionDeniedError, match="is suspended") as refusal:
        authenticate(books.conn, key.key, 8)
    assert refusal.value.code == f"{kind}_suspended"
    assert "unpaid" not in refusal.value.message
    assert resume(books.conn, *names, **WHO) == suspended
    assert resume(books.conn, *names, **WHO) is None
    assert authenticate(books.conn, key.key, 8).team == "acme"
    assert [entry.action.partition(".")[2] for entry in read_log(books.conn, limit=2)] == ["resume", "suspend"]


def test_other_keys_go_on(books, key):
    """R9"""
    operations.suspend_project(books.conn, "acme", "search", **WHO)
    operations.suspend_user(books.conn, "acme", "ada", **WHO)
    operations.suspend_key(books.conn, key.id, **WHO)
    assert authenticate(books.conn, books.key.key, 8).project == "inference"
    with pytest.raises(PermissionDeniedError) as refusal:
        authenticate(books.conn, books.key.key, 8, "search")
    assert refusal.value.code == "project_suspended"


def test_a_revoked_key_is_401_even_if_its_team_is_suspended(books):
    """R21"""
    operations.suspend_team(books.conn, "acme", **WHO)
    operations.revoke_key(books.conn, books.key.id, **WHO)
    with pytest.raises(AuthenticationError):
        authenticate(books.conn, books.key.key, 8)


def test_a_hold_of_a_suspended_team_settles(books):
    """R9"""
    books.grant(100)
    request_id = books.hold(1, 10)
    operations.suspend_team(books.conn, "acme", **WHO)
    assert books.settle(request_id, 1, 4) == 5


@pytest.mark.parametrize(
    ("suspend", "names"),
    [
        (operations.suspend_team, ("nobody",)),
        (operations.suspend_project, ("acme", "nothing")),
        (operations.suspend_user, ("acme", "nobody")),
        (operations.suspend_key, ("0" * 12,)),
    ],
)
def test_what_does_not_exist_cannot_be_suspended(books, suspend, names):
    with pytest.raises(NotFoundError):
        suspend(books.conn, *names, **WHO)


def test_the_header_chooses_the_project(books):
    """R9"""
    operations.create_project(books.conn, "acme", "search", **WHO)
    assert authenticate(books.conn, books.key.key, 1, "search").project == "search"
    assert authenticate(books.conn, books.key.key, 1, "acme/search").project == "search"
    assert authenticate(books.conn, books.key.key, 1).project == "inference"


@pytest.mark.parametrize("wanted", ["nothing", "other/search", "other/inference", "nobody/search", "/search", "acme/"])
def test_a_project_that_is_unknown_or_another_team_s_is_refused_alike(books, wanted):
    """R9"""
    operations.create_project(books.conn, "acme", "search", **WHO)
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
    made = operations.create_key(books.conn, "acme", scopes=("admin", "inference"), models=("a/b", "a/b"), **WHO)
    caller = authenticate(books.conn, made.key, 1)
    assert (caller.scopes, caller.models) == (("inference", "admin"), ("a/b",))
    assert caller.may_use("a/b")
    assert not caller.may_use("a/c")
    default = authenticate(books.conn, books.key.key, 1)
    assert (default.scopes, default.models) == (("inference", "usage"), None)
    assert default.may_use("a/c")


def test_admin_includes_usage_and_manage_but_no_calls(books):
    """R21"""
    made = operations.create_key(books.conn, "acme", scopes=("admin",), **WHO)
    caller = authenticate(books.conn, made.key, 1)
    assert [caller.has_scope(scope) for scope in ("usage", "manage", "admin", "inference")] == [True, True, True, False]
    manager = authenticate(books.conn, operations.create_key(books.conn, "acme", scopes=("manage",), **WHO).key, 1)
    assert [manager.has_scope(scope) for scope in ("usage", "manage", "admin")] == [False, True, False]


@pytest.mark.parametrize("wrong", [{"scopes": ()}, {"scopes": ("root",)}, {"models": ()}, {"models": ("",)}])
def test_scopes_and_models_that_make_no_sense_are_refused(books, wrong):
    with pytest.raises(InvalidValueError):
        operations.create_key(books.conn, "acme", **wrong, **WHO)


def test_each_change_is_in_the_log_with_who_what_and_when(books):
    """R9"""
    made = operations.create_key(books.conn, "acme", label="laptop", actor="cli:ada", now_ms=5)
    newest, *_ = read_log(books.conn)
    assert newest.to_json() == {
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
    before = read_log(books.conn)
    books.grant(5, idempotency_key="k")
    assert read_log(books.conn) == before


def test_a_change_that_is_undone_leaves_no_entry(books):
    before = read_log(books.conn)
    with pytest.raises(NotFoundError):
        operations.create_project(books.conn, "nobody", "x", **WHO)
    assert read_log(books.conn) == before


def test_the_log_is_read_by_team_actor_action_time_and_page(books):
    operations.create_team(books.conn, "lab", actor="cli:bob", now_ms=books.now_ms + 1)
    books.grant(5)
    conn = books.conn
    assert {entry.team for entry in operations.read_log(conn, team="lab")} == {"lab"}
    assert [entry.action for entry in operations.read_log(conn, actor="cli:bob")] == ["teams.create"]
    assert [entry.action for entry in operations.read_log(conn, action="credits")] == ["credits.grant"]
    assert [entry.action for entry in operations.read_log(conn, action="credits.grant")] == ["credits.grant"]
    assert operations.read_log(conn, action="credits.gran") == operations.read_log(conn, action="%") == []
    assert [entry.team for entry in operations.read_log(conn, since_ms=books.now_ms + 1)] == ["lab"]
    assert "lab" not in {entry.team for entry in operations.read_log(conn, until_ms=books.now_ms + 1)}
    everything = operations.read_log(conn)
    first = operations.read_log(conn, limit=2)
    assert first + operations.read_log(conn, before_seq=first[-1].seq) == everything
    with pytest.raises(InvalidValueError):
        operations.read_log(conn, limit=0)
    with pytest.raises(NotFoundError):
        operations.read_log(conn, team="nobody")


def test_every_operation_that_writes_is_logged():
    """Whatever takes an actor is a change that somebody asked for."""
    unlogged = [
        name
        for name, function in inspect.getmembers(operations, inspect.isfunction)
        if "actor" in inspect.signature(function).parameters and name != "read_log"
        if "logged_as" not in function.__dict__
    ]
    assert unlogged == ["apply_plans", "ensure_default_team"]


def test_the_first_team_is_logged_too(store):
    with store.immediate() as conn:
        operations.ensure_default_team(conn, actor="cli:serve", now_ms=1)
        assert [(entry.action, entry.team) for entry in read_log(conn)] == [
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
    operations.suspend_team(books.conn, "acme", **WHO)
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
    operations.suspend_team(books.conn, "acme", **WHO)
    for sql in ("UPDATE log SET actor = 'x'", "DELETE FROM log", "UPDATE suspensions SET reason = 'x'"):
        with pytest.raises(sqlite3.IntegrityError):
            books.conn.execute(sql)
    operations.resume_team(books.conn, "acme", **WHO)
