"""`inferd log`, `suspend` and `resume` of teams, projects, users and keys, and keys with scopes."""

from __future__ import annotations

from contextlib import closing

import pytest

from inferd.errors import PermissionDeniedError
from inferd.instants import parse_instant_ms
from inferd.ledger.identity.keys import authenticate
from inferd.ledger.operations import keys as access
from inferd.ledger.storage.store import Store

NOW_MS = parse_instant_ms("2026-12-01")


@pytest.fixture
def key(inferd):
    """Made for alice in project website of team acme."""
    inferd("teams", "create", "acme")
    inferd("projects", "create", "acme", "website")
    inferd("users", "create", "acme", "alice")
    words = ("--team", "acme", "--project", "website", "--user", "alice")
    return inferd("keys", "create", *words, "--json").json


SUBJECTS = {
    "teams": ("team:acme", ("acme",)),
    "projects": ("project:acme/website", ("acme", "website")),
    "users": ("user:acme/alice", ("acme", "alice")),
    "keys": ("key:{id}", ("{id}",)),
}


@pytest.mark.parametrize("noun", SUBJECTS)
def test_suspend_and_resume(inferd, data_dir, key, noun):
    """R9"""
    subject, names = SUBJECTS[noun]
    names = [name.format(**key) for name in names]
    made = inferd(noun, "suspend", *names, "--reason", "unpaid", "--json").json
    assert (made["subject"], made["team"], made["reason"]) == (subject.format(**key), "acme", "unpaid")
    assert "was suspended before" in inferd(noun, "suspend", *names).out
    with closing(Store(data_dir).connect()) as conn:
        with pytest.raises(PermissionDeniedError):
            authenticate(conn, key["key"], NOW_MS)
        assert inferd(noun, "resume", *names, "--json").json == {"resumed": True, "suspension": made}
        assert authenticate(conn, key["key"], NOW_MS).user == "alice"
    assert "is not suspended" in inferd(noun, "resume", *names).out
    assert "403" in inferd(noun, "suspend", *names).out
    assert "Resumed" in inferd(noun, "resume", *names).out


def test_lists_show_the_status(inferd, key):
    for words in (
        *(("teams", "suspend", "acme"), ("projects", "suspend", "acme", "website")),
        *(("users", "suspend", "acme", "alice"), ("keys", "suspend", key["id"])),
    ):
        inferd(*words)
    assert inferd("teams", "list", "--json").json[0]["status"] == "suspended"
    projects = inferd("projects", "list", "acme", "--json").json
    assert [(each["project"], each["status"]) for each in projects] == [
        ("inference", "active"),
        ("website", "suspended"),
    ]
    assert [each["status"] for each in inferd("users", "list", "acme", "--json").json] == ["suspended"]
    assert [each["status"] for each in inferd("keys", "list", "--json").json] == ["suspended"]
    for words in (("teams", "list"), ("projects", "list", "acme"), ("users", "list", "acme"), ("keys", "list")):
        assert "suspended" in inferd(*words).out
    assert "suspended" in inferd("teams", "show", "acme").out


def test_a_team_without_users_says_so(inferd):
    inferd("teams", "create", "acme")
    assert "Team acme has no users." in inferd("users", "list", "acme").out


@pytest.mark.parametrize(
    "words",
    [
        *(("projects", "list", "nobody"), ("users", "list", "nobody"), ("teams", "suspend", "nobody")),
        *(("projects", "suspend", "acme", "nothing"), ("users", "resume", "acme", "nobody"), ("keys", "suspend", "x")),
        *(("log", "--team", "nobody"), ("keys", "create", "--team", "acme", "--scope", "root")),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(inferd, words):
    inferd("teams", "create", "acme")
    ended = inferd(*words)
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)


def test_a_key_with_scopes_and_models(inferd):
    """R21"""
    inferd("teams", "create", "acme")
    words = ("--scope", "admin", "--scope", "inference", "--model", "local/a", "--model", "local/b")
    made = inferd("keys", "create", "--team", "acme", *words, "--json").json
    assert (made["scopes"], made["models"]) == (["inference", "admin"], ["local/a", "local/b"])
    shown = inferd("keys", "list").out
    assert "inference admin" in shown
    assert "local/a local/b" in shown


def test_the_log_shows_who_did_what(inferd, key):
    inferd("credits", "grant", "acme", "7", "--note", "invoice 1")
    inferd("teams", "create", "beta")
    entries = inferd("log", "--json").json
    assert [entry["action"] for entry in entries] == [
        *("teams.create", "credits.grant", "keys.create", "users.create", "projects.create", "teams.create"),
    ]
    assert [entry["seq"] for entry in entries] == [6, 5, 4, 3, 2, 1]
    assert all(entry["actor"].startswith("cli:") for entry in entries)
    assert entries[1]["details"]["note"] == "invoice 1"
    assert entries[1]["details"]["amount_usd"] == "7.000000000"
    assert [entry["team"] for entry in inferd("log", "--team", "beta", "--json").json] == ["beta"]
    assert [entry["seq"] for entry in inferd("log", "--action", "keys", "--json").json] == [4]
    assert [entry["seq"] for entry in inferd("log", "--limit", "2", "--before", "5", "--json").json] == [4, 3]
    assert inferd("log", "--actor", "nobody").out == "No changes match.\n"
    assert "note invoice 1" in inferd("log").out
    assert key["key"] not in inferd("log", "--json").out


def test_resume_says_that_the_team_has_suspended_it_as_well(inferd, data_dir, key):
    """R9, R21"""
    manager = inferd("keys", "create", "--team", "acme", "--scope", "manage", "--json").json
    with Store(data_dir).immediate() as conn:
        access.suspend_user(conn, "acme", "alice", actor=f"key:{manager['id']}", now_ms=NOW_MS)
    inferd("users", "suspend", "acme", "alice")
    ended = inferd("users", "resume", "acme", "alice").out
    assert "Ended the operator's suspension of user acme/alice. Its team has suspended it as well." in ended
    assert "Resumed user acme/alice" in inferd("users", "resume", "acme", "alice").out


READING = [
    *(("teams", "list"), ("teams", "show", "x"), ("keys", "list"), ("projects", "list", "x"), ("users", "list", "x")),
    *(("usage",), ("credits", "show", "x"), ("credits", "list", "x"), ("budgets", "list", "x"), ("statements", "list")),
    *(("plans", "list"), ("tiers", "list"), ("alerts",), ("log",), ("batches", "list"), ("batches", "show", "x")),
    *(("audit",), ("doctor",), ("backup", "x.db"), ("ledger", "export")),
    *(("keys", "create", "--team", "x"), ("credits", "grant", "x", "1"), ("teams", "suspend", "x", "--reason", "r")),
]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_command_in_a_folder_without_a_ledger_makes_none(inferd, data_dir, words):
    refused = inferd(*words)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith(f"inferd: {data_dir}: there is no ledger.db here; name its folder with --data-dir")
    assert not data_dir.exists()
