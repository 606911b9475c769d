"""`inferd teams`, `projects` and `users`."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_create_on_plan_free_grants_five_dollars(inferd):
    made = inferd("teams", "create", "acme")
    assert made.status == 0
    assert "Created team acme on plan free" in made.out
    assert "$5.00 of credit" in made.out
    assert inferd("credits", "show", "acme", "--json").json["balance_usd"] == "5.000000000"


def test_create_prints_a_next_command_that_works(inferd, data_dir):
    out = inferd("teams", "create", "acme").out
    (line,) = (line.strip() for line in out.splitlines() if "keys create" in line)
    program, *words = shlex.split(line)
    assert words == ["keys", "create", "--team", "acme", "--data-dir", str(data_dir)]
    assert subprocess.run([program, *words], stdout=subprocess.PIPE, check=True).stdout


def test_create_on_another_plan_has_no_credit_and_prints_how_to_grant(inferd):
    out = inferd("teams", "create", "lab", "--plan", "academic").out
    assert "no credit yet" in out
    assert "inferd credits grant lab 10" in out
    assert inferd("credits", "show", "lab", "--json").json["available_usd"] == "0.000000000"


def test_create_prints_json(inferd):
    made = inferd("teams", "create", "acme", "--plan", "pro", "--json").json
    assert INSTANT.fullmatch(made.pop("created_at"))
    assert made.pop("created_by").startswith("cli:")
    assert made == {
        "team": "acme",
        "plan": "pro",
        "tier_override": None,
        "tier_override_until": None,
        "status": "active",
    }


def test_list_is_ordered_by_name(inferd):
    for name in ("beta", "alpha"):
        inferd("teams", "create", name)
    assert [team["team"] for team in inferd("teams", "list", "--json").json] == ["alpha", "beta"]
    heading, _, first, second = inferd("teams", "list").out.splitlines()
    assert heading.split() == ["Team", "Plan", "Tier", "Status", "Created", "By"]
    assert (first.split()[0], second.split()[0]) == ("alpha", "beta")


def test_list_table_has_the_tier_in_effect_and_its_source(inferd):
    inferd("teams", "create", "alpha")
    inferd("teams", "create", "beta", "--plan", "pro")
    inferd("teams", "create", "gamma")
    inferd("credits", "grant", "alpha", "50")
    inferd("teams", "set", "gamma", "--tier", "5")
    rows = inferd("teams", "list").out.splitlines()[2:]
    tiers = ("2 (earned)", "4 (minimum of plan pro)", "5 (set by the operator)")
    for row, tier in zip(rows, tiers, strict=True):
        assert f"  {tier}  " in row


def test_list_json_has_the_tier_in_effect_and_its_source(inferd):
    """R1"""
    inferd("teams", "create", "alpha", "--plan", "pro")
    inferd("teams", "create", "beta")
    inferd("credits", "grant", "beta", "50")
    inferd("teams", "create", "gamma")
    inferd("teams", "set", "gamma", "--tier", "3", "--until", "2999-01-01")
    teams = inferd("teams", "list", "--json").json
    assert [(team["tier"], team["tier_source"]) for team in teams] == [
        (4, "minimum of plan pro"),
        (2, "earned"),
        (3, "set by the operator until 2999-01-01T00:00:00.000Z"),
    ]
    assert "set by the operator until" in inferd("teams", "list").out


@pytest.mark.usefixtures("new_ledger")
def test_list_without_teams_is_empty_and_names_the_ledger(inferd, data_dir):
    assert inferd("teams", "list", "--json").json == []
    assert f"There are no teams in {data_dir / 'ledger.db'} yet." in inferd("teams", "list").out


def test_show_has_projects_users_keys_and_credit(inferd):
    inferd("teams", "create", "acme")
    inferd("projects", "create", "acme", "website")
    inferd("users", "create", "acme", "alice@acme.org")
    key_id = inferd("keys", "create", "--team", "acme", "--project", "website", "--json").json["id"]
    shown = inferd("teams", "show", "acme", "--json").json
    assert shown["team"] == "acme"
    assert [project["project"] for project in shown["projects"]] == ["inference", "website"]
    assert [user["user"] for user in shown["users"]] == ["alice@acme.org"]
    assert [(key["id"], key["project"]) for key in shown["keys"]] == [(key_id, "website")]
    assert shown["credit"] == inferd("credits", "show", "acme", "--json").json
    text = inferd("teams", "show", "acme").out
    for part in ("acme", "free", "inference, website", "alice@acme.org", key_id, "$5.00"):
        assert part in text


def test_create_of_an_existing_name_is_refused(inferd):
    inferd("teams", "create", "acme")
    inferd("users", "create", "acme", "alice")
    for words, said in (
        (("teams", "create", "acme"), "there is a team 'acme' already"),
        (("projects", "create", "acme", "inference"), "has a project 'inference' already"),
        (("users", "create", "acme", "alice"), "has a user 'alice' already"),
    ):
        refused = inferd(*words)
        assert (refused.status, refused.out) == (1, "")
        assert said in refused.err


def test_create_on_an_unknown_plan_lists_the_known_plans(inferd):
    refused = inferd("teams", "create", "acme", "--plan", "gold")
    assert refused.status == 1
    assert "free, academic, pro, enterprise" in refused.err
    assert inferd("teams", "list", "--json").json == []


def test_create_with_a_bad_name_is_refused(inferd):
    assert "cannot be the name of a team" in inferd("teams", "create", "a/b").err


@pytest.mark.usefixtures("new_ledger")
def test_unknown_team_is_refused_with_the_command_that_lists_teams(inferd):
    for words in (("teams", "show", "x"), ("projects", "create", "x", "p"), ("users", "create", "x", "u")):
        refused = inferd(*words)
        assert refused.status == 1
        assert refused.err == "inferd: there is no team 'x'; `inferd teams list` shows the teams\n"
