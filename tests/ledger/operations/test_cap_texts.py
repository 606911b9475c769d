"""What a cap says of itself: never less than nothing is left, and people see whose limit it is and when it resets."""

from __future__ import annotations

import msgspec
import pytest

from inferd.ledger.reports.records import cap_record
from inferd.ledger.requests.pricing import hold_nanousd
from inferd.ledger.terms.caps import Cap
from inferd.ledger.terms.counters import Spend
from inferd.price import Price

CAP = Cap("team:acme", "plan", "plan pro", "2026-11", 100, 7, Spend(60, 30))


@pytest.mark.parametrize(
    ("spend", "left", "left_without_holds"),
    [
        (Spend(60, 30), 17, 47),
        (Spend(60, 47), 0, 47),
        (Spend(60, 48), 0, 47),
        (Spend(107, 0), 0, 0),
        (Spend(200, 9), 0, 0),
    ],
)
def test_what_is_left_is_never_less_than_nothing(spend, left, left_without_holds):
    """R7: a budget can be set below what was spent."""
    cap = msgspec.structs.replace(CAP, spend=spend)
    assert (cap.limit, cap.left, cap.left_without_holds) == (107, left, left_without_holds)


@pytest.mark.parametrize(
    ("scope", "who"),
    [
        ("team:acme", "team 'acme'"),
        ("project:acme/website", "project 'website'"),
        ("user:acme/ada", "user 'ada'"),
        ("key:Ab3", "key 'Ab3'"),
    ],
)
def test_a_refusal_names_whose_limit_it_is(scope, who):
    """R7"""
    cap = msgspec.structs.replace(CAP, scope=scope)
    assert cap.describe().startswith(f"{who} may spend $0.000000107 in 2026-11 (plan pro), of which $0.00000006 is")
    assert cap.code == f"{scope.partition(':')[0]}_spend_limit_exceeded"


@pytest.mark.parametrize(
    ("period", "when", "resets_at"),
    [
        ("2026-11", "in 2026-11", "2026-12-01T00:00:00.000Z"),
        ("2026-12", "in 2026-12", "2027-01-01T00:00:00.000Z"),
        ("2026", "in 2026", "2027-01-01T00:00:00.000Z"),
        # Not the module's own object: a period is read from the file.
        ("".join(["life", "time"]), "in all", None),
    ],
)
def test_a_cap_says_when_it_resets(period, when, resets_at):
    """R7"""
    cap = msgspec.structs.replace(CAP, period=period)
    assert f" {when} (plan pro)" in cap.describe()
    assert cap_record(cap)["resets_at"] == resets_at


def test_nothing_is_held_for_counts_that_cannot_be():
    with pytest.raises(AssertionError, match="prompt"):
        hold_nanousd(Price(1, 1), -1, 0)
    with pytest.raises(AssertionError, match="completion"):
        hold_nanousd(Price(1, 1), 0, -1)
