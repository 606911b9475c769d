"""`inferd statements`, and `inferd credits refund`, `withdraw`, `void`: a month of a postpaid team."""

from __future__ import annotations

import pytest


def of(value, **fields):
    assert {name: value[name] for name in fields} == fields


@pytest.mark.usefixtures("used")
def test_refund_returns_the_cost_of_a_request_once(inferd):
    """R19, R22"""
    before = inferd("credits", "show", "acme", "--json").json["balance_usd"]
    words = ("credits", "refund", "req-october", "0.000001", "--reason", "goodwill", "--idempotency-key", "1", "--json")
    made = inferd(*words).json
    assert inferd(*words).json == made
    assert made["refunded_usd"] == "0.000001000"
    assert inferd("credits", "refund", "req-october", "--reason", "rest", "--json").json["left_usd"] == "0.000000000"
    refused = inferd("credits", "refund", "req-october", "--reason", "again")
    assert refused.status == 1
    assert "was refunded in full already" in refused.err
    assert before < inferd("credits", "show", "acme", "--json").json["balance_usd"] == "15.000000000"
    assert inferd("audit").status == 0


@pytest.mark.usefixtures("used")
def test_withdraw_and_void_print_what_is_left(inferd):
    """R19"""
    assert inferd("credits", "withdraw", "acme", "10.1", "--reason", "x").status == 1
    of(inferd("credits", "withdraw", "acme", "4", "--reason", "x", "--json").json, withdrawn_usd="4.000000000")
    inferd("credits", "void", "1", "--reason", "y")
    first, second = inferd("credits", "list", "acme", "--json").json
    of(first, state="voided", kind="promotional")
    of(second, state="open", kind="paid")
    assert second["remaining_usd"] == "6.000000000"
    assert inferd("credits", "void", "1", "--reason", "y").status == 1
    assert inferd("credits", "void", "9", "--reason", "y").status == 1
    assert inferd("credits", "void", "2").status == 2
    assert inferd("audit").status == 0


@pytest.mark.usefixtures("used")
def test_show_prints_a_month_as_table_csv_and_json(inferd):
    """R6"""
    shown = inferd("statements", "show", "acme", "--month", "2026-10", "--json").json
    of(shown, team="acme", period="2026-10", charged_usd="0.000000000", due_usd="0.000000000")
    (line,) = shown["lines"]
    of(line, deployment="local/paid", requests=1, prompt_tokens=100, cached_tokens=20, completion_tokens=7)
    assert line["net_usd"] == line["cost_usd"] != "0.000000000"
    head, row = inferd("statements", "show", "acme", "--month", "2026-10", "--csv").out.splitlines()
    assert head.startswith("deployment,requests,")
    assert row.startswith("local/paid,1,100,20,7,")
    assert "Paid from credit" in inferd("statements", "show", "acme", "--month", "2026-10").out


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("words", [("--month", "October"), ("--json", "--csv")])
def test_invalid_arguments_are_refused(inferd, words):
    assert inferd("statements", "show", "acme", *words).status == 1


@pytest.mark.usefixtures("used")
def test_pay_with_nothing_due_is_refused(inferd):
    refused = inferd("statements", "pay", "acme", "1")
    assert refused.status == 1
    assert "owes nothing for " in refused.err
    assert inferd("statements", "list").out.startswith("There are no statements")
    assert inferd("statements", "list", "--csv").out == "team,period,state,charged_usd,refunded_usd,paid_usd,due_usd\n"


@pytest.mark.usefixtures("used")
def test_list_of_a_team_that_owes_nothing_says_so(inferd):
    inferd("teams", "set", "acme", "--plan", "pro")
    assert inferd("statements", "list", "acme").out.startswith("Team acme owes nothing")
    assert inferd("statements", "pay", "acme").err.startswith("inferd: team 'acme' owes nothing for ")
