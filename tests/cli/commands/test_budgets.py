"""`inferd budgets` and `inferd teams set`: limits, and where they come from."""

from __future__ import annotations

import re

import pytest


@pytest.fixture
def acme(inferd):
    inferd("teams", "create", "acme")
    return inferd


def caps(inferd):
    return [
        (cap["scope"], cap["source_name"], cap["limit_usd"])
        for cap in inferd("teams", "show", "acme", "--json").json["limits"]["caps"]
    ]


def test_budget_is_set_listed_shown_and_removed(acme):
    """R7"""
    made = acme("budgets", "set", "acme", "20", "--project", "inference", "--by", "year", "--json").json
    assert (made["scope"], made["period"], made["amount_usd"]) == ("project:acme/inference", "year", "20.000000000")
    assert [budget["scope"] for budget in acme("budgets", "list", "acme", "--json").json["budgets"]] == [made["scope"]]
    assert ("project:acme/inference", "budget", "20.000000000") in caps(acme)
    assert acme("budgets", "remove", "acme", "--project", "inference").status == 1
    assert acme("budgets", "remove", "acme", "--project", "inference", "--by", "year").status == 0
    assert acme("budgets", "list", "acme").out == "Team acme has no budgets.\n"


def test_default_in_tokens_is_set_listed_shown_and_removed(acme):
    """R7"""
    words = ("acme", "--tokens", "1.5k", "--each-user", "--by", "day")
    assert "Set the budget of each user of acme to 1,500 tokens each day." in acme("budgets", "set", *words).out
    (listed,) = acme("budgets", "list", "acme", "--json").json["budgets"]
    assert (listed["scope"], listed["unit"], listed["amount"]) == ("each-user:acme", "tokens", 1_500)
    assert "each user of acme  day  1,500 tokens" in acme("budgets", "list", "acme").out
    assert acme("teams", "show", "acme", "--json").json["limits"]["defaults"] == [listed]
    assert re.search(r"each user +default +each day +1,500 tokens", acme("teams", "show", "acme").out)
    removed = acme("budgets", "remove", "acme", "--tokens", "--each-user", "--by", "day")
    assert removed.out == "Removed the operator's budget of 1,500 tokens each day of each user of acme.\n"


@pytest.mark.parametrize(("text", "ms"), [("600s", 600_000), ("90m", 5_400_000), ("1.5h", 5_400_000), ("500ms", 500)])
def test_budget_of_compute_time_is_shown_in_seconds(acme, text, ms):
    """R7"""
    made = acme("budgets", "set", "acme", "--compute", text, "--by", "week", "--json").json
    assert (made["unit"], made["amount"], made["amount_usd"]) == ("compute_ms", ms, None)


def test_budgets_of_a_user_are_listed_by_unit(acme):
    """R7"""
    acme("users", "create", "acme", "ada")
    for words in (("5",), ("--tokens", "2M"), ("--compute", "1h")):
        acme("budgets", "set", "acme", *words, "--user", "ada")
    assert "$5.00 a month, 2,000,000 tokens a month, 3,600 s a month" in acme("users", "list", "acme").out


def test_raise_adds_to_every_limit_of_the_team(acme):
    """R7"""
    assert caps(acme) == [("team:acme", "plan free", "100.000000000")]
    raised = acme("budgets", "raise", "acme", "7", "--until", "2100-01-01", "--reason", "a fair")
    assert raised.out.startswith("Raised every limit of team acme by $7.00, from ")
    assert caps(acme) == [("team:acme", "plan free", "107.000000000")]
    assert "a fair" in acme("budgets", "list", "acme").out


@pytest.mark.parametrize(
    "words",
    [
        ("set", "acme", "-1"),
        ("set", "nobody", "1"),
        ("set", "acme", "1", "--by", "hour"),
        ("set", "acme"),
        ("set", "acme", "1", "--tokens", "5"),
        ("set", "acme", "--tokens", "1.5"),
        ("set", "acme", "--tokens", "2m"),
        ("set", "acme", "--compute", "600"),
        ("set", "acme", "--tokens", "5", "--each-user", "--each-key"),
        ("set", "acme", "--tokens", "5", "--each-user", "--user", "ada"),
        ("raise", "acme", "1", "--until", "2000-01-01", "--reason", "x"),
        ("raise", "acme", "1", "--until", "2100-01-01"),
        ("raise", "acme", "0", "--until", "2100-01-01", "--reason", "x"),
    ],
)
def test_invalid_budget_is_refused(acme, words):
    assert acme("budgets", *words).status in (1, 2)
    assert acme("budgets", "list", "acme", "--json").json == {"budgets": [], "raises": []}


def test_postpaid_free_team_needs_a_payment_method(acme):
    """R6"""
    refused = acme("teams", "set", "acme", "--overage", "postpaid")
    assert refused.status == 1
    assert acme("credits", "show", "acme", "--json").json["overage"] == "block"
    limits = acme("teams", "set", "acme", "--overage", "postpaid", "--payment-method", "on", "--json").json
    assert (limits["overage"], limits["tier"], limits["payment_method"]) == ("postpaid", 1, True)
    assert acme("credits", "show", "acme", "--json").json["overage"] == "postpaid"


def test_teams_set_changes_plan_and_tier(acme):
    """R1"""
    limits = acme("teams", "set", "acme", "--plan", "academic", "--tier", "3", "--json").json
    assert (limits["plan"], limits["tier"], limits["tier_source"]) == ("academic", 3, "set by the operator")
    assert acme("teams", "set", "acme", "--tier", "earned", "--json").json["tier"] == 1
    assert acme("teams", "set", "acme", "--tier", "high").status == 1
    assert acme("teams", "set", "acme", "--tier", "6").status == 1


def test_grant_above_a_cap_prints_a_warning(acme):
    """R1"""
    said = "only $100.00 more in 20"
    out = acme("credits", "grant", "acme", "600").out
    assert f"Warning: plan free lets the team spend {said}" in out
    assert re.search(r"which is below its balance of \$605\.00; `\S*inferd teams show acme", out)
    (warning,) = acme("credits", "grant", "acme", "1", "--json").json["warnings"]
    assert said in warning
    assert "Warning" not in acme("teams", "create", "small").out


def test_changes_of_budgets_are_in_the_log(acme):
    acme("teams", "set", "acme", "--tier", "3")
    acme("budgets", "set", "acme", "1")
    acme("budgets", "raise", "acme", "1", "--until", "2100-01-01", "--reason", "x")
    acme("credits", "void", "1", "--reason", "y")
    entries = acme("log", "--json").json
    assert [entry["action"] for entry in entries][:4] == ["credits.void", "budgets.raise", "budgets.set", "teams.set"]


def test_member_lists_show_budgets_and_limits(acme):
    acme("users", "create", "acme", "ada")
    acme("budgets", "set", "acme", "20", "--project", "inference", "--by", "year")
    acme("budgets", "set", "acme", "3", "--user", "ada")
    key_id = acme("keys", "create", "--team", "acme", "--json").json["id"]
    acme("budgets", "set", "acme", "4", "--key", key_id, "--by", "lifetime")
    acme("projects", "set", "acme", "inference", "--concurrency", "7")
    (project,) = acme("projects", "list", "acme", "--json").json
    assert project["budgets"] == {"year": "20.000000000"}
    (user,) = acme("users", "list", "acme", "--json").json
    assert user["budgets"] == {"month": "3.000000000"}
    assert (project["concurrency"], project["concurrency_source"]) == (7, "set by the operator")
    assert (user["concurrency"], user["concurrency_source"]) == (64, "plan free")
    (key,) = acme("keys", "list", "--json").json
    assert key["budgets"] == {"lifetime": "4.000000000"}
    assert "$4.00 in all" in acme("keys", "list").out
    assert "$4.00 in all" in acme("teams", "show", "acme").out
    assert acme("projects", "list", "acme").out.splitlines()[2].split()[-4] == "7"
    assert "$20.00 a year" in acme("projects", "list", "acme").out
    assert "$3.00 a month" in acme("users", "list", "acme").out


def test_budget_alerts_by_the_thresholds_in_force(used, inferd, tmp_path, monkeypatch):
    """R7: those that the server read, or `plans apply`; not those of a models.toml that lies about."""
    applied, other = tmp_path / "applied.toml", tmp_path / "elsewhere"
    applied.write_text("[alerts]\nthresholds_percent = [30, 90]\n")
    other.mkdir()
    (other / "models.toml").write_text("[alerts]\nthresholds_percent = [1]\n")
    monkeypatch.chdir(other)
    assert inferd("plans", "apply", "--config", str(applied), "--json").json["changed"]
    spent_usd = inferd("usage", "--team", "acme", "--json").json["total"]["cost_usd"]
    assert float(spent_usd) > 0
    inferd("budgets", "set", "acme", spent_usd, "--by", "lifetime")
    alerts = [alert for alert in inferd("alerts", "--json").json if alert["period"] == "lifetime"]
    assert [alert["threshold_percent"] for alert in alerts] == [30, 90]
    (entry,) = inferd("log", "--action", "plans", "--json").json
    assert entry["details"]["alerts"] == {"thresholds_percent": [30, 90], "low_balance_percent": 10}
