from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.prompt_lookup import N_GRAM, PromptLookup


def lookup_of(text: bytes, num_prompt_tokens: int | None = None) -> PromptLookup:
    lookup = PromptLookup(list(text), len(text) if num_prompt_tokens is None else num_prompt_tokens)
    lookup.read()
    return lookup


def test_what_is_repeated_is_expected_to_go_on() -> None:
    assert bytes(lookup_of(b"the lighthouse keeper. the ligh").expected(7)) == b"thouse "


def test_nothing_is_expected_of_what_is_new_or_too_short() -> None:
    for text in (b"", b"ab", b"abc", b"abcdefgh", b"abxyab"):
        lookup = lookup_of(text)
        assert not lookup.expects
        assert lookup.expected(5) == ()


def test_the_latest_place_counts() -> None:
    assert bytes(lookup_of(b"wordsA.wordsB.words").expected(2)) == b"B."


def test_a_place_is_kept_while_it_goes_on_and_left_when_it_does_not() -> None:
    token_ids = list(b"wordsA then. wordsA now. wordsA ")
    lookup = PromptLookup(token_ids, len(token_ids))
    lookup.read()
    assert bytes(lookup.expected(3)) == b"now"
    token_ids += b"t"
    lookup.read()
    assert bytes(lookup.expected(3)) == b"hen", "what has followed the last three is looked up anew"


def test_a_loop_goes_on_for_ever() -> None:
    assert bytes(lookup_of(b"x abababab").expected(7)) == b"abababa"
    assert bytes(lookup_of(b"aaaaa").expected(3)) == b"aaa"


def test_the_longer_a_match_has_lasted_the_surer_it_is() -> None:
    text = b"abcdefghijklmnopqrstuvwxyz. "
    chances = [lookup_of(text + text[: N_GRAM + length]).chance(1) for length in range(20)]
    assert chances == sorted(chances)
    assert chances[0] == pytest.approx(0.5)
    assert chances[-1] > 0.95
    lookup = lookup_of(text + text[:N_GRAM])
    assert [lookup.chance(1 + ahead) for ahead in range(20)] == pytest.approx(chances), "given that it lasts"


def test_answers_that_copy_are_trusted_and_answers_that_do_not_are_not() -> None:
    text = b"abcdefghijklmnopqrstuvwxyz. "
    copies = lookup_of(text * 5, num_prompt_tokens=len(text))
    misses = lookup_of(b"".join(b"abc%c" % byte for byte in b"ABCDEFGH"), num_prompt_tokens=0)
    new = lookup_of(text + text[:N_GRAM])
    for lookup in (copies, misses):
        lookup._length = 0
    assert copies.chance(1) > 0.8 > new.chance(1) == 0.5 > misses.chance(1)


def test_what_a_prompt_has_in_common_with_itself_tells_nothing() -> None:
    text = b"abcdefghijklmnopqrstuvwxyz. " * 3
    lookup = lookup_of(text)
    lookup._length = 0
    assert lookup.chance(1) == 0.5


@given(st.binary(min_size=0, max_size=60).map(lambda text: bytes(97 + byte % 3 for byte in text)), st.data())
def test_it_does_not_matter_how_often_it_reads(text, data) -> None:
    token_ids: list[int] = []
    lookup = PromptLookup(token_ids, 5)
    while len(token_ids) < len(text):
        token_ids += text[len(token_ids) :][: data.draw(st.integers(1, 9))]
        lookup.read()
    once = PromptLookup(list(text), 5)
    once.read()
    assert lookup.expected(10) == once.expected(10)
    assert lookup.chance(1) == once.chance(1)
    if once.expects:
        # Some place in the text was followed by just this, until the text ends.
        expected = bytes(once.expected(4))
        places = range(len(text) - N_GRAM)
        assert any((text + expected)[place:].startswith(text[-N_GRAM:] + expected) for place in places)
