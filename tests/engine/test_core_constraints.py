"""Constrained sequences in the core: the mask counts, whatever model and biases want; the books stay right."""

from __future__ import annotations

import dataclasses
import json

import pytest

from inferd.constraint import ConstraintKind
from inferd.engine.logits.sampling import log_softmax
from inferd.engine.messages import AddRequest, FinishReason
from inferd.sampling_params import SamplingParams
from tests.engine.driver import Driver, request
from tests.fakes import END, FakeRunner, compiled

SCHEMA = '{"type":"object","properties":{"a":{"enum":["x","y"]}},"required":["a"],"additionalProperties":false}'


def constrained(
    name: str = "r", source: str = SCHEMA, kind: ConstraintKind = ConstraintKind.JSON_SCHEMA, **options: object
) -> AddRequest:
    return dataclasses.replace(request(name, **options), constraint=compiled(kind, source))  # type: ignore[arg-type]


def test_the_text_matches_and_ends_by_itself() -> None:
    driver = Driver(FakeRunner())
    driver.add(constrained(max_tokens=50))
    driver.run()
    assert json.loads(driver.text())["a"] in ("x", "y")
    assert driver.reason() is FinishReason.STOP
    assert END not in driver.token_ids(), "nothing is sampled once nothing can follow"
    assert driver.usage().completion_tokens == len(driver.text()), "forced tokens count"


def test_no_bias_brings_a_masked_token_back() -> None:
    driver = Driver(FakeRunner())
    params = SamplingParams(logit_bias=((END, 100.0), (ord("z"), 100.0)))
    driver.add(constrained(max_tokens=50, params=params))
    driver.run()
    assert json.loads(driver.text())["a"] in ("x", "y")


def test_an_end_token_ends_it_where_the_text_is_complete() -> None:
    driver = Driver(FakeRunner(answer=b"aaa"))
    driver.add(constrained(source="a*", kind=ConstraintKind.REGEX, max_tokens=50))
    driver.run()
    assert driver.text() == "aaa"
    assert driver.reason() is FinishReason.STOP
    assert driver.token_ids()[-1] == END


def test_others_in_the_batch_are_left_alone() -> None:
    driver = Driver(FakeRunner())
    driver.add(constrained("c", max_tokens=50), request("free"))
    driver.run()
    assert json.loads(driver.text("c"))
    assert driver.text("free").encode() == FakeRunner.continuation(b"hello", 8)


def test_the_limit_and_stop_strings_come_before_the_grammar() -> None:
    driver = Driver(FakeRunner())
    driver.add(
        constrained("short", max_tokens=3), constrained("stopped", max_tokens=50, params=SamplingParams(stop=("a",)))
    )
    driver.run()
    assert driver.reason("short") is FinishReason.LENGTH
    assert driver.text("stopped") == '{"'
    assert driver.reason("stopped") is FinishReason.STOP


def test_a_matcher_outlives_a_failed_step_and_a_lost_stream() -> None:
    from tests.fakes import Failure

    runner = FakeRunner(max_sequences=1)
    driver = Driver(runner)
    long = '{"type":"string","minLength":12,"maxLength":12}'
    driver.add(constrained("one", source=long, max_tokens=60))
    for _ in range(6):
        driver.step()
    runner.failures = [Failure(-3)]
    driver.add(dataclasses.replace(request("two", prompt=b"other"), tenant="other"))
    driver.run()
    assert len(json.loads(driver.text("one"))) == 12
    assert driver.reason("one") is FinishReason.STOP


def test_an_aborted_request_leaves_nothing_behind() -> None:
    driver = Driver(FakeRunner())
    driver.add(constrained(max_tokens=50))
    driver.step()
    driver.abort("r")
    assert driver.reason() is FinishReason.CANCELLED
    driver.core.close()


def test_a_grammar_without_a_next_token_ends_its_request_alone(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    driver = Driver(FakeRunner())
    driver.add(constrained("stuck", max_tokens=50), request("free"))
    driver.step()
    monkeypatch.setattr(driver.core._sequences["stuck"].matcher, "take_mask", lambda: None)
    driver.run()
    assert driver.reason("stuck") is FinishReason.CONSTRAINT
    assert driver.reason("free") is FinishReason.LENGTH


def test_logprobs_are_those_of_the_raw_logits_whatever_grammar_bias_and_temperature_do() -> None:
    driver = Driver(FakeRunner())
    params = SamplingParams(temperature=2.0, logit_bias=((ord("x"), 5.0),), top_logprobs=3)
    driver.add(constrained(max_tokens=50, params=params))
    driver.run()
    memory = list(b"hello")
    tokens = [token for output in driver.outputs["r"] for token in output.logprobs]
    assert b"".join(token.piece for token in tokens).decode() == driver.text()
    for token in tokens:
        expected = log_softmax(FakeRunner.logits_of(memory))
        assert token.logprob == pytest.approx(expected[token.piece[0]])
        assert token.top[0].piece == bytes([FakeRunner.next_token(memory)]), "masked tokens are among the best ones"
        best = sorted(expected, reverse=True)[:3]
        assert [alternative.logprob for alternative in token.top] == pytest.approx(best)
        memory += token.piece


def test_nothing_is_reported_unless_asked_for_and_never_an_end_token() -> None:
    driver = Driver(FakeRunner(answer=b"ab"))
    driver.add(request("plain"), request("asked", params=SamplingParams(top_logprobs=0)))
    driver.run()
    assert [token for output in driver.outputs["plain"] for token in output.logprobs] == []
    asked = [token for output in driver.outputs["asked"] for token in output.logprobs]
    assert [(token.piece, token.top) for token in asked] == [(b"a", ()), (b"b", ())]
