"""`suspend` and `resume` of teams, projects, users and keys."""

from __future__ import annotations

from contextlib import closing

import pytest

from inferd.errors import PermissionDeniedError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.identity.authenticator import authenticate
from inferd.ledger.storage.store import Store

NOW_MS = parse_instant_ms("2026-12-01")


SUBJECTS = {
    "teams": ("team:acme", ("acme",)),
    "projects": ("project:acme/website", ("acme", "website")),
    "users": ("user:acme/alice", ("acme", "alice")),
    "keys": ("key:{id}", ("{id}",)),
}


@pytest.mark.parametrize("noun", SUBJECTS)
def test_suspend_refuses_requests_until_resume(inferd, data_dir, key, noun):
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


def test_lists_show_suspended_subjects(inferd, key):
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


def test_resume_names_the_suspension_by_the_team(inferd, data_dir, key):
    """R9, R21"""
    manager = inferd("keys", "create", "--team", "acme", "--scope", "manage", "--json").json
    with Store(data_dir).immediate() as conn:
        operations.suspend(conn, "user", ("acme", "alice"), by=operations.Author(f"key:{manager['id']}", NOW_MS))
    inferd("users", "suspend", "acme", "alice")
    ended = inferd("users", "resume", "acme", "alice").out
    assert "Ended the operator's suspension of user acme/alice. Its team has suspended it as well." in ended
    assert "Resumed user acme/alice" in inferd("users", "resume", "acme", "alice").out
