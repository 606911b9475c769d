from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.money import display_usd, format_usd, parse_usd


@given(st.integers(min_value=0, max_value=10**30))
def test_an_amount_survives_as_text(nanousd):
    assert parse_usd(format_usd(nanousd)) == nanousd


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [(0, "0.000000000"), (1, "0.000000001"), (1_500_000_000, "1.500000000"), (-1, "-0.000000001")],
)
def test_an_amount_is_shown_with_nine_places(nanousd, text):
    assert format_usd(nanousd) == text


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [
        (0, "$0.00"),
        (6_000 * 10**9, "$6,000.00"),
        (50_000, "$0.00005"),
        (12_345_678_900_000_001, "$12,345,678.900000001"),
        (-1_500_000_000, "-$1.50"),
    ],
)
def test_an_amount_for_people_has_two_places_and_as_many_more_as_it_needs(nanousd, text):
    assert display_usd(nanousd) == text


@pytest.mark.parametrize(("text", "nanousd"), [("5", 5 * 10**9), ("12.50", 12_500_000_000), ("0.000000001", 1)])
def test_plain_decimals_are_read(text, nanousd):
    assert parse_usd(text) == nanousd


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "+1", "1.", ".5", "1e3", "1,5", "0.0000000001", "nan", "inf", "1_000", "$5", "1 000", "0x1"),
        *(
            " 5",
            "5 ",
            "5\n",
            "05",
            "00",
            "\N{ARABIC-INDIC DIGIT THREE}",
            "\N{FULLWIDTH DIGIT FIVE}",
            "1.\N{ARABIC-INDIC DIGIT THREE}",
        ),
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="is not an amount in USD"):
        parse_usd(text)
