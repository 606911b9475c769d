"""`inferd log`."""

from __future__ import annotations


def test_log_lists_actor_action_and_details(inferd, key):
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
