"""`inferd credits show` beside requests under way."""

from __future__ import annotations


def test_what_is_held_is_part_of_the_balance_and_not_available(inferd, used):
    assert inferd("credits", "show", "acme", "--json").json == {
        "team": "acme",
        "balance_usd": "14.999988200",
        "held_usd": "0.000030000",
        "available_usd": "14.999958200",
        "owed_usd": "0.000000000",
        "overage": "block",
    }
