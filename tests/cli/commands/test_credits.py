"""`inferd credits`."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("acme")


@pytest.fixture
def acme(inferd):
    inferd("teams", "create", "acme", "--plan", "academic")


def balance(inferd):
    return inferd("credits", "show", "acme", "--json").json["balance_usd"]


def test_grant_prints_amount_and_available_credit(inferd):
    made = inferd("credits", "grant", "acme", "12.50")
    assert "Granted $12.50 of paid credit to team acme (grant 1)." in made.out
    assert "Team acme has $12.50 available." in made.out
    assert "inferd credits show acme" in made.out
    assert balance(inferd) == "12.500000000"


def test_grant_prints_json(inferd):
    words = ("--kind", "promotional", "--expires", "2999-01-01", "--note", "welcome")
    made = inferd("credits", "grant", "acme", "0.000000001", *words, "--json").json
    assert made.pop("created_at").endswith("Z")
    assert made.pop("created_by").startswith("cli:")
    assert made == {
        "grant_id": 1,
        "team": "acme",
        "kind": "promotional",
        "amount_usd": "0.000000001",
        "priority": 50,
        "expires_at": "2999-01-01T00:00:00.000Z",
        "note": "welcome",
        "warnings": [],
    }


def test_grant_expiry_may_be_a_moment(inferd):
    made = inferd("credits", "grant", "acme", "1", "--expires", "2999-01-01T12:00:00+02:00", "--json").json
    assert made["expires_at"] == "2999-01-01T10:00:00.000Z"


def test_repeated_grant_with_idempotency_key_is_unchanged(inferd):
    words = ("credits", "grant", "acme", "10", "--note", "invoice 17", "--idempotency-key", "invoice-17")
    first = inferd(*words, "--json").json
    assert inferd(*words, "--json").json == first
    assert (
        "Unchanged: this idempotency key already made grant 1 ($10.00 of paid credit to team acme, "
        in inferd(*words).out
    )
    assert balance(inferd) == "10.000000000"


def test_idempotency_key_of_another_grant_is_refused(inferd):
    inferd("credits", "grant", "acme", "10", "--idempotency-key", "k")
    refused = inferd("credits", "grant", "acme", "11", "--idempotency-key", "k")
    assert (refused.status, refused.out) == (1, "")
    assert "stands for another grant of team 'acme' (amount $10.00, kind paid, priority 50)" in refused.err
    assert balance(inferd) == "10.000000000"


def test_repeated_grant_without_idempotency_key_counts_twice(inferd):
    for _ in range(2):
        inferd("credits", "grant", "acme", "10")
    assert balance(inferd) == "20.000000000"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("acme", "ten"), "is not an amount in USD"),
        (("acme", "1.0000000001"), "at most 9 decimals"),
        (("acme", "1e3"), "is not an amount in USD"),
        (("acme", "0"), "more than $0"),
        (("acme", "100000001"), "at most $100,000,000.00"),
        (("acme", "1", "--expires", "2020-01-01"), "is in the past"),
        (("acme", "1", "--expires", "01.12.2026"), "is not a date"),
        (("acme", "1", "--note", "a\tb"), "printable"),
        (("nobody", "1"), "there is no team 'nobody'"),
    ],
)
def test_refused_grant_changes_nothing_and_says_why(inferd, words, said):
    refused = inferd("credits", "grant", *words)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("inferd: ")
    assert said in refused.err
    assert balance(inferd) == "0.000000000"


@pytest.mark.parametrize("words", [("acme",), ("acme", "-5"), ("acme", "1", "--kind", "gift")])
def test_grant_with_wrong_usage_has_status_2(inferd, words):
    assert inferd("credits", "grant", *words).status == 2
    assert balance(inferd) == "0.000000000"


def test_credit_table_has_every_digit(inferd):
    inferd("credits", "grant", "acme", "1234567.000000001")
    _, _, row = inferd("credits", "show", "acme").out.splitlines()
    assert row.split() == ["$1,234,567.000000001", "$0.00", "$100.00", "$0.00", "block"]


def test_show_of_an_unknown_team_is_refused(inferd):
    assert inferd("credits", "show", "nobody").status == 1


def test_grant_has_the_given_priority(inferd):
    """R8"""
    assert inferd("credits", "grant", "acme", "1", "--priority", "7", "--json").json["priority"] == 7
    inferd("credits", "grant", "acme", "1")
    assert [grant["priority"] for grant in inferd("credits", "list", "acme", "--json").json] == [7, 50]
    rows = inferd("credits", "list", "acme").out.splitlines()
    assert [row.split()[:3] for row in rows[2:]] == [["1", "paid", "7"], ["2", "paid", "50"]]
    assert inferd("credits", "grant", "acme", "1", "--priority", "101").status == 2


def test_impossible_grant_number_is_wrong_usage(inferd):
    for number in ("0", str(2**63), "9" * 30):
        assert inferd("credits", "void", number, "--reason", "x").status == 2
    assert inferd("log", "--before", str(2**63)).status == 2
    assert "there is no grant" in inferd("credits", "void", str(2**63 - 1), "--reason", "x").err


def test_postpaid_team_without_credit_shows_no_credit(inferd):
    """R6"""
    created = inferd("teams", "create", "chem", "--plan", "pro").out
    bound = "postpaid: it may owe up to $6,000.00 a month (plan pro)"
    assert f"with project inference and no credit; {bound}." in created
    assert "Grant credit" in created
    for command in ("credits", "teams"):
        shown = inferd(command, "show", "chem").out
        assert f"Team chem has no credit; {bound}." in shown
    row = next(line for line in inferd("credits", "show", "chem").out.splitlines() if "$0.00" in line)
    assert row.split() == ["$0.00"] * 4 + ["postpaid"]


def test_postpaid_team_with_credit_shows_credit_and_bound(inferd):
    """R6"""
    inferd("teams", "create", "chem", "--plan", "pro")
    granted = inferd("credits", "grant", "chem", "0.00005").out
    assert "available" not in granted
    assert (
        "Team chem has $0.00005 of credit; postpaid: it may spend up to $6,000.00 a month (plan pro) and owe what "
        "credit does not cover." in granted
    )
    inferd("budgets", "set", "chem", "20", "--by", "lifetime")
    assert "up to $20.00 in all (budget)" in inferd("credits", "show", "chem").out


def test_credit_show_counts_held_credit_in_the_balance_and_not_as_available(inferd, used):
    assert inferd("credits", "show", "acme", "--json").json == {
        "team": "acme",
        "balance_usd": "9.999988200",
        "held_usd": "0.000030000",
        "available_usd": "9.999958200",
        "owed_usd": "0.000000000",
        "overage": "block",
    }
