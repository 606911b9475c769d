"""`inferd plans`, `inferd tiers`, and what sets a team's terms."""

from __future__ import annotations

import csv
import io

import pytest

GOLD = """
[plans.gold]
yearly_cap_usd = 12.5
included_credit_usd = 3
included_every = "month"
included_valid_days = 31
user_concurrency = "unlimited"
[tiers.1]
rpm = 222
"""


@pytest.fixture
def gold(tmp_path):
    path = tmp_path / "gold.toml"
    path.write_text(GOLD)
    return str(path)


@pytest.mark.usefixtures("new_ledger")
def test_shipped_plans_are_listed_as_table_json_and_csv(inferd):
    """R1."""
    plans = {plan["plan"]: plan for plan in inferd("plans", "list", "--json").json}
    assert list(plans) == ["free", "academic", "pro", "enterprise"]
    assert (plans["pro"]["monthly_cap_usd"], plans["pro"]["yearly_cap_usd"]) == ("6000.000000000", None)
    assert plans["enterprise"]["yearly_cap_usd"] == "700000.000000000"
    rows = list(csv.DictReader(io.StringIO(inferd("plans", "list", "--csv").out)))
    assert [(row["plan"], row["tier_floor"]) for row in rows] == [
        ("free", "0"),
        ("academic", "1"),
        ("pro", "4"),
        ("enterprise", "5"),
    ]
    table = inferd("plans", "list").out
    assert "$700,000.00 a year" in table
    assert inferd("plans", "list", "--json", "--csv").status == 2


@pytest.mark.usefixtures("new_ledger")
def test_shipped_tiers_are_listed_as_table_json_and_csv(inferd):
    """R1, R2."""
    tiers = inferd("tiers", "list", "--json").json
    assert [(tier["rpm_min"], tier["rpm"]) for tier in tiers] == [
        (10, 60),
        (None, 100),
        (None, 1000),
        (None, 5000),
        (None, 10000),
        (None, None),
    ]
    rows = list(csv.DictReader(io.StringIO(inferd("tiers", "list", "--csv").out)))
    assert [row["qualifying_usd"] for row in rows] == ["", "", "50.000000000", "500.000000000", "5000.000000000", ""]
    table = inferd("tiers", "list").out.splitlines()
    assert "10 to 60" in table[2]
    assert "its credit" in table[2]
    assert "$50.00 paid" in table[4]
    assert "unlimited" in table[-1]


@pytest.mark.usefixtures("new_ledger")
def test_applied_plan_of_a_file_can_be_given_to_a_team(inferd, gold):
    """R1, R3."""
    refused = inferd("teams", "create", "acme", "--plan", "gold")
    assert refused.status == 1
    assert "`inferd plans apply`" in refused.err
    assert inferd("plans", "list", "--config", gold, "--json").json[-1]["plan"] == "gold"
    assert len(inferd("plans", "list", "--json").json) == 4
    assert "now in force" in inferd("plans", "apply", "--config", gold).out
    assert "already in force" in inferd("plans", "apply", "--config", gold).out
    assert "$3.00 a month, for 31 days" in inferd("plans", "list").out
    assert "64, unlimited" in inferd("plans", "list").out
    assert inferd("tiers", "list", "--json").json[1]["rpm"] == 222
    assert "with project inference and $3.00 of credit" in inferd("teams", "create", "acme", "--plan", "gold").out


def test_apply_that_removes_a_used_plan_is_refused(inferd, gold, tmp_path):
    """R1: unknown or inconsistent data is an error of the configuration."""
    inferd("plans", "apply", "--config", gold)
    inferd("teams", "create", "acme", "--plan", "gold")
    (tmp_path / "none.toml").write_text("")
    refused = inferd("plans", "apply", "--config", str(tmp_path / "none.toml"))
    assert refused.status == 2
    assert "team 'acme' is on it" in refused.err
    (tmp_path / "wrong.toml").write_text("[tiers.9]\nrpm = 1\n")
    assert "unknown tier" in inferd("plans", "apply", "--config", str(tmp_path / "wrong.toml")).err


def test_tier_set_until_a_date_shows_its_source(inferd):
    """R1."""
    inferd("teams", "create", "acme")
    set_ = inferd("teams", "set", "acme", "--tier", "3", "--until", "2100-01-01", "--json").json
    assert (set_["tier"], set_["tier_source"]) == (3, "set by the operator until 2100-01-01T00:00:00.000Z")
    shown = " ".join(inferd("teams", "show", "acme").out.split())
    for part in (
        "3 (set by the operator until 2100-01-01T00:00:00.000Z)",
        "requests a minute 5,000 tier 3",
        "requests at once in a project 64 plan free",
    ):
        assert part in shown
    assert inferd("teams", "list", "--json").json[0]["tier_override_until"] == "2100-01-01T00:00:00.000Z"
    inferd("teams", "set", "acme", "--tier", "earned")
    assert inferd("teams", "list", "--json").json[0]["tier_override_until"] is None
    assert inferd("teams", "set", "acme", "--until", "2100-01-01").status == 1
    assert "is in the past" in inferd("teams", "set", "acme", "--tier", "1", "--until", "2020-01-01").err
