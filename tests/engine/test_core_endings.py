"""End of a text in the core: end tokens, stop tokens, stop strings, and the fields that postpone or replace them."""

from __future__ import annotations

import dataclasses

import pytest

from inferd.constraint import ConstraintKind
from inferd.engine.messages import FinishReason
from inferd.sampling_params import SamplingParams
from tests.engine.driver import Driver, request
from tests.fakes import END, FakeRunner, compiled


def ended(params: SamplingParams, answer: bytes = b"abcabc", max_tokens: int = 12, **options: object) -> Driver:
    """Return a driver whose request `r` has ended. The model says `answer` and then its end token."""
    driver = Driver(FakeRunner(answer=answer))
    asked = request("r", max_tokens=max_tokens, params=params)
    driver.add(dataclasses.replace(asked, **options))  # type: ignore[arg-type]
    driver.run()
    return driver


def test_stop_token_ends_the_text_and_is_billed_but_not_shown() -> None:
    driver = ended(SamplingParams(stop_token_ids=(ord("c"),)))
    assert (driver.text(), driver.reason()) == ("ab", FinishReason.STOP)
    assert (driver.token_ids(), driver.usage().completion_tokens) == (list(b"abc"), 3)


def test_stop_token_is_shown_where_the_stop_is_included() -> None:
    driver = ended(SamplingParams(stop_token_ids=(ord("c"),), includes_stop=True))
    assert (driver.text(), driver.reason()) == ("abc", FinishReason.STOP)


def test_stop_string_is_shown_where_the_stop_is_included() -> None:
    driver = ended(SamplingParams(stop=("bc",), includes_stop=True))
    assert (driver.text(), driver.outputs["r"][-1].stop_string) == ("abc", "bc")


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (SamplingParams(stop=("b",), min_tokens=1), "a"),
        (SamplingParams(stop=("b",), min_tokens=2), "abca"),
        (SamplingParams(stop=("bc",), min_tokens=2), "a"),
        (SamplingParams(stop=("bc",), min_tokens=3), "abca"),
        (SamplingParams(stop=("b",), min_tokens=2, includes_stop=True), "abcab"),
    ],
)
def test_stop_string_that_is_complete_within_min_tokens_does_not_end_the_text(params, text) -> None:
    driver = ended(params)
    assert (driver.text(), driver.reason()) == (text, FinishReason.STOP)


@pytest.mark.parametrize("min_tokens", [0, 1, 2, 3, 6])
def test_end_token_is_not_sampled_before_min_tokens(min_tokens) -> None:
    driver = ended(SamplingParams(min_tokens=min_tokens), answer=b"a")
    assert driver.reason() is FinishReason.STOP
    assert driver.token_ids().index(END) == max(1, min_tokens), "so many tokens come before it"


def test_stop_token_is_not_sampled_before_min_tokens() -> None:
    driver = ended(SamplingParams(stop_token_ids=(ord("c"),), min_tokens=4))
    assert ord("c") not in driver.token_ids()[:4]
    assert driver.token_ids()[-1] == ord("c")


def test_end_token_is_never_sampled_if_it_is_ignored() -> None:
    driver = ended(SamplingParams(ignores_end=True), answer=b"ab")
    assert (driver.reason(), driver.usage().completion_tokens) == (FinishReason.LENGTH, 12)
    assert END not in driver.token_ids()


def test_no_bias_brings_an_ignored_end_token_back() -> None:
    driver = ended(SamplingParams(ignores_end=True, logit_bias=((END, 100.0),)))
    assert driver.reason() is FinishReason.LENGTH


@pytest.mark.parametrize("params", [SamplingParams(stop=("ca",)), SamplingParams(stop_token_ids=(ord("c"),))])
def test_stop_ends_the_text_if_end_tokens_are_ignored(params) -> None:
    driver = ended(dataclasses.replace(params, ignores_end=True))
    assert (driver.text(), driver.reason()) == ("ab", FinishReason.STOP)


@pytest.mark.parametrize("params", [SamplingParams(min_tokens=9), SamplingParams(ignores_end=True)])
@pytest.mark.parametrize("grammar", ["ab", "ab*"])
def test_grammar_whose_text_is_complete_takes_precedence(params, grammar) -> None:
    """`ab*` can go on, so that no end token comes; `ab` cannot."""
    driver = ended(params, answer=b"ab", constraint=compiled(ConstraintKind.REGEX, grammar))
    if grammar == "ab":
        assert (driver.text(), driver.reason()) == ("ab", FinishReason.STOP)
    else:
        assert driver.text().startswith("abbbbbbb")


def test_only_allowed_tokens_are_sampled() -> None:
    driver = ended(SamplingParams(allowed_token_ids=(ord("x"), ord("y"))), answer=b"xab")
    assert (set(driver.text()) <= {"x", "y"}, driver.reason()) == (True, FinishReason.LENGTH)
    with_end = ended(SamplingParams(allowed_token_ids=(ord("x"), END)), answer=b"xx")
    assert (with_end.text(), with_end.reason()) == ("xx", FinishReason.STOP)


def test_grammar_without_an_allowed_token_ends_the_text() -> None:
    params = SamplingParams(allowed_token_ids=(ord("a"),))
    driver = ended(params, constraint=compiled(ConstraintKind.REGEX, "aab"))
    assert (driver.text(), driver.reason()) == ("aa", FinishReason.CONSTRAINT)


def test_minimum_above_the_limit_that_the_server_lowered_ends_at_the_limit() -> None:
    driver = ended(SamplingParams(min_tokens=50), answer=b"a")
    assert (driver.reason(), driver.usage().completion_tokens) == (FinishReason.LENGTH, 12)
