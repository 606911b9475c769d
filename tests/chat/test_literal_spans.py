from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.chat.literal_spans import ControlTexts, Sentinels, mapped_strings
from inferd.errors import InvalidRequestError
from inferd.tokenizer import Segment

CONTROL = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", " <P>")


def pieces(text: str, control: tuple[str, ...] = CONTROL) -> list[str]:
    return [text[start:end] for start, end in ControlTexts(control).literal_spans(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("hello > there < friend", []),
        ("a <|im_start|>system b", ["<|im_start|>"]),
        ("a <|im_start|><s> b", ["<|im_start|><s>"]),
        ("a <|im_sta", ["<|im_sta"]),
        ("a <|im_sta \n", ["<|im_sta"]),
        ("rt|> b", ["rt|>"]),
        (" \n rt|> b", ["rt|>"]),
        ("> quote", [">"]),
        ("|im_start|", ["|im_start|"]),
        (" start\n", ["start"]),
        ("x <P> y", ["<P>"]),
        ("<<s>", ["<s>"]),
        ("x <s> <", ["<s>", "<"]),
    ],
)
def test_literal_spans_of_a_string_are_found(text, found):
    assert pieces(text) == found


def test_longest_of_two_control_texts_is_marked():
    assert pieces("x aba y", ("ab", "aba")) == ["aba"]
    assert pieces("x abab y", ("ab", "aba")) == ["aba"]


def test_vocabulary_without_control_tokens_has_no_literal_spans():
    assert pieces("<s>", ()) == []
    assert pieces("<s>", ("",)) == []


@given(
    control=st.lists(st.text(alphabet="ab<|\\[", min_size=1, max_size=5), max_size=8).map(tuple),
    text=st.text(alphabet="ab<|\\[ ", max_size=20),
)
def test_every_occurrence_of_a_control_text_touches_a_span(control, text):
    spans = ControlTexts(control).literal_spans(text)
    for known in control:
        for match in re.finditer(f"(?={re.escape(known)})", text):
            start, end = match.start(), match.start() + len(known)
            assert any(start < right and left < end for left, right in spans)
    assert all(left < right for left, right in spans)
    assert all(first[1] < second[0] for first, second in itertools.pairwise(spans))


def test_thousands_of_control_texts_are_searched_in_long_hostile_text():
    control = ControlTexts(f"<unused{number}>" for number in range(6000))
    assert len(control.literal_spans("<unused" * 20_000 + "<unused5999>")) == 1


def test_marked_span_becomes_one_plain_segment():
    sentinels = Sentinels(ControlTexts(CONTROL), set())
    rendered = "<s>" + sentinels.mark("a <s> b") + "</s>"
    assert sentinels.segments(rendered) == [Segment("<s>a ", True), Segment("<s>", False), Segment(" b</s>", True)]
    assert sentinels.strip(rendered) == "<s>a <s> b</s>"


def test_long_run_of_control_texts_becomes_one_plain_segment():
    sentinels = Sentinels(ControlTexts(CONTROL), set())
    text = "<s>" * 50_000
    assert sentinels.segments(sentinels.mark(text)) == [Segment(text, False)]


def test_no_slice_of_a_marked_text_leaves_a_control_text_unmarked():
    sentinels = Sentinels(ControlTexts(CONTROL), set())
    marked = sentinels.mark("a <s><s></s> b")
    for start in range(len(marked)):
        for end in range(start, len(marked)):
            for part in (marked[start:end], marked[:start] + marked[end:]):
                try:
                    segments = sentinels.segments(part)
                except InvalidRequestError:
                    continue
                assert all(known not in segment.text for segment in segments if segment.special for known in CONTROL)


def test_cut_sentinel_is_refused():
    sentinels = Sentinels(ControlTexts(CONTROL), set())
    marked = sentinels.mark("<s>")
    for part in (marked[1:], marked[:-1], marked[::-1]):
        with pytest.raises(InvalidRequestError, match="where the model's chat template cuts it"):
            sentinels.segments(part)


def test_special_segments_stay_apart_if_the_span_between_them_was_removed():
    sentinels = Sentinels(ControlTexts(CONTROL), set())
    rendered = sentinels.mark("x <|im_<s>start|> y")
    for character in "<s>":
        rendered = rendered.replace(sentinels.mark("<")[0] + character, sentinels.mark("<")[0])
    assert [segment.text for segment in sentinels.segments(rendered)] == ["x <|im_", "start|> y"]


def test_sentinels_differ_from_every_character_of_the_input():
    first = Sentinels(ControlTexts(CONTROL), set()).mark("a <s> b")
    used = set(first)
    second = Sentinels(ControlTexts(CONTROL), used).mark("a <s> b")
    assert not (set(second) - set("a <s> b")) & used


def test_mapped_strings_changes_strings_at_any_depth():
    value = {"a": ["b", ("c", 1, None, True)], "d": {"e": "f"}}
    assert mapped_strings(value, str.upper) == {"A": ["B", ["C", 1, None, True]], "D": {"E": "F"}}
