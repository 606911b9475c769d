"""`inferd projects` and `inferd users`."""

from __future__ import annotations

import pytest


def test_create_of_a_member_prints_json(inferd):
    inferd("teams", "create", "acme")
    project = inferd("projects", "create", "acme", "website", "--json").json
    user = inferd("users", "create", "acme", "alice", "--json").json
    assert set(project) == {"team", "project", "status", "created_at", "created_by"}
    assert set(user) == {"team", "user", "status", "created_at", "created_by"}
    assert (project["team"], project["project"], user["team"], user["user"]) == ("acme", "website", "acme", "alice")


def test_list_without_users_says_so(inferd):
    inferd("teams", "create", "acme")
    assert "Team acme has no users." in inferd("users", "list", "acme").out


@pytest.mark.parametrize(("noun", "one"), [("projects", "project"), ("users", "user")])
def test_set_concurrency_of_a_member_shows_its_number_and_source(inferd, noun, one):
    """R10."""
    inferd("teams", "create", "acme")
    inferd(noun, "create", "acme", "x")
    set_ = inferd(noun, "set", "acme", "x", "--concurrency", "128", "--json").json
    assert set_ == {"team": "acme", one: "x", "concurrency": 128, "source": "set by the operator"}
    assert f"requests at once of {one}:acme/x" in inferd("teams", "show", "acme").out
    assert (
        "may have at most 64 requests at the same time (plan free)"
        in inferd(noun, "set", "acme", "x", "--concurrency", "plan").out
    )
    assert f"requests at once of {one}:acme/x" not in inferd("teams", "show", "acme").out
    assert inferd(noun, "set", "acme", "x", "--concurrency", "many").status == 1
    assert inferd(noun, "set", "acme", "x", "--concurrency", "0").status == 1
    assert inferd("log", "--json").json[0]["action"] == f"{noun}.set"
