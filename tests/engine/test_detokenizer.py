from __future__ import annotations

import codecs
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.detokenizer import Detokenizer

# Few letters, so that stop strings overlap, repeat and nearly match; characters of 1 to 4 bytes.
LETTERS = "abé€😀"
TEXTS = st.text(LETTERS, max_size=24)
STOPS = st.lists(st.text(LETTERS, min_size=1, max_size=5), max_size=4)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def up_to_the_first_complete_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """The rule itself, character by character: what stands before the first stop string that is complete."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


def needed(text: str, stops: list[str]) -> int:
    """Characters at the end of the text that could still become a stop string."""
    lengths = [length for stop in stops for length in range(1, len(stop)) if text.endswith(stop[:length])]
    return max(lengths, default=0)


@given(TEXTS, STOPS, st.lists(st.integers(0, 200)))
def test_text_ends_before_the_first_complete_stop_string_however_it_is_cut(text, stops, places) -> None:
    expected, stopped = up_to_the_first_complete_stop(text, stops)
    detokenizer = Detokenizer(stops)
    out = ""
    for piece in cut(text.encode(), places):
        out += detokenizer.push(piece)
        if detokenizer.stopped:
            break
    out += detokenizer.flush()
    assert (out, detokenizer.stopped) == (expected, stopped)


@given(TEXTS, STOPS, st.lists(st.integers(0, 200)))
def test_never_more_is_held_back_than_may_still_be_cut_off(text, stops, places) -> None:
    detokenizer = Detokenizer(stops)
    out, data = "", b""
    for piece in cut(text.encode(), places):
        out += detokenizer.push(piece)
        if detokenizer.stopped:
            return
        data += piece
        whole = data.decode("utf-8", "ignore")
        assert out == whole[: len(whole) - needed(whole, stops)]


@given(st.binary(max_size=24), st.lists(st.integers(0, 200)))
def test_bytes_that_are_no_utf8_become_replacement_characters_however_they_are_cut(data, places) -> None:
    detokenizer = Detokenizer(())
    out = "".join(detokenizer.push(piece) for piece in cut(data, places))
    begun = codecs.getincrementaldecoder("utf-8")(errors="replace")
    assert out + detokenizer.flush() == begun.decode(data)


def test_a_character_comes_when_its_last_byte_has_come() -> None:
    detokenizer = Detokenizer(())
    assert [detokenizer.push(bytes([byte])) for byte in "é😀".encode()] == ["", "é", "", "", "", "😀"]


@pytest.mark.parametrize("stops", [(), ("END",)], ids=["no stop string", "a stop string"])
@pytest.mark.parametrize("character", "é漢😀", ids=["2 bytes", "3 bytes", "4 bytes"])
def test_text_that_is_cut_inside_a_character_ends_before_it(character: str, stops: tuple[str, ...]) -> None:
    data = character.encode()
    for length in range(1, len(data)):
        detokenizer = Detokenizer(stops)
        assert detokenizer.push(b"okE" + data[:length]) + detokenizer.flush() == "okE"


def test_bytes_that_cannot_begin_a_character_stay_visible_at_the_end() -> None:
    detokenizer = Detokenizer(())
    assert detokenizer.push(b"ok\xff") + detokenizer.flush() == "ok\ufffd"


def test_what_was_held_for_a_stop_string_that_never_came_is_given_at_the_end() -> None:
    detokenizer = Detokenizer(("END",))
    assert detokenizer.push(b"theEN") == "the"
    assert detokenizer.flush() == "EN"
    assert not detokenizer.stopped


def test_the_stop_string_complete_first_counts_even_within_one_piece() -> None:
    detokenizer = Detokenizer(("abcd", "bc"))
    assert detokenizer.push(b"xabcd") == "xa"
    assert detokenizer.stop_string == "bc"


def test_of_stop_strings_complete_at_once_the_longest_is_cut_off() -> None:
    detokenizer = Detokenizer(("c", "abc"))
    assert detokenizer.push(b"xabc") == "x"
    assert detokenizer.stop_string == "abc"


def test_a_failed_match_is_held_on_where_a_new_one_begins_in_it() -> None:
    detokenizer = Detokenizer(("aab",))
    assert [detokenizer.push(b"a") for _ in range(4)] == ["", "", "a", "a"]
    assert detokenizer.push(b"b") == ""
    assert detokenizer.stopped


def test_nothing_is_pushed_after_a_stop_string() -> None:
    detokenizer = Detokenizer(("a",))
    detokenizer.push(b"a")
    with pytest.raises(AssertionError, match="no text follows"):
        detokenizer.push(b"b")
    assert detokenizer.flush() == ""
