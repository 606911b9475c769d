"""A mask that takes long holds up its own sequence, and nobody else."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from inferd.constraint import ConstraintKind
from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.engine.messages import AddRequest, FinishReason, TrafficClass
from inferd.logprobs import TokenLogprob
from inferd.sampling_params import SamplingParams
from tests.engine.driver import Driver, request
from tests.fakes import N_VOCAB, FakeRunner, compiled

SCHEMA = '{"type":"string","minLength":6,"maxLength":6}'
PATIENCE_S = 20.0


class GatedGrammar:
    """llguidance's matcher, whose masks come while the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.error: Exception | None = None
        self.threads: list[str] = []
        self._matcher = compiled(ConstraintKind.JSON_SCHEMA, SCHEMA)._prototype

    def deep_copy(self) -> GatedGrammar:
        return self

    def compute_bitmask(self) -> bytes:
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return self._matcher.compute_bitmask()

    def __getattr__(self, name: str) -> Callable[..., object]:
        found: Callable[..., object] = getattr(self._matcher, name)
        return found


@pytest.fixture
def grammar() -> Iterator[GatedGrammar]:
    made = GatedGrammar()
    yield made
    made.gate.set()


def gated(
    grammar: GatedGrammar, name: str = "late", params: SamplingParams | None = None, **limits: float
) -> AddRequest:
    """A request whose masks come while the gate is open; `limits` of CompiledConstraint."""
    made = CompiledConstraint(grammar, N_VOCAB, **limits)  # type: ignore[arg-type]
    return dataclasses.replace(request(name, max_tokens=50, params=params), constraint=made)


def test_others_go_on_meanwhile(grammar: GatedGrammar) -> None:
    driver = Driver(FakeRunner())
    driver.add(gated(grammar), request("free"))
    while "free" in driver.core._sequences:
        driver.step()
    assert driver.text("free").encode() == FakeRunner.continuation(b"hello", 8)
    assert driver.token_ids("late") == []
    grammar.gate.set()
    driver.run()
    assert len(json.loads(driver.text("late"))) == 6
    assert driver.reason("late") is FinishReason.STOP


def logprobs(driver: Driver) -> list[TokenLogprob]:
    """Of all tokens, whichever step they came in: a draft brings several at once."""
    return [logprob for output in driver.outputs["r"] for logprob in output.logprobs]


def test_the_token_is_the_same_as_if_the_mask_had_been_there(grammar: GatedGrammar) -> None:
    params = SamplingParams(logit_bias=((ord("q"), 30.0),), top_logprobs=2)
    late, punctual = Driver(FakeRunner()), Driver(FakeRunner())
    late.add(gated(grammar, "r", params=params))
    for _ in range(3):
        late.step()
    assert late.outputs["r"] == []
    grammar.gate.set()
    late.run()
    other = dataclasses.replace(
        request(max_tokens=50, params=params), constraint=compiled(ConstraintKind.JSON_SCHEMA, SCHEMA)
    )
    punctual.add(other)
    punctual.run()
    assert late.text() == punctual.text()
    assert logprobs(late) == logprobs(punctual)
    assert late.usage() == dataclasses.replace(punctual.usage(), compute_ms=late.usage().compute_ms)


def test_with_nothing_else_to_do_a_step_computes_nothing(grammar: GatedGrammar) -> None:
    driver = Driver(FakeRunner())
    driver.add(gated(grammar))
    for _ in range(3):
        driver.step()
    assert len(driver.runner.rows_per_step) == 1


def test_it_can_be_aborted(grammar: GatedGrammar) -> None:
    driver = Driver(FakeRunner())
    driver.add(gated(grammar))
    driver.step()
    driver.abort("late")
    assert driver.reason("late") is FinishReason.CANCELLED
    assert driver.usage("late").completion_tokens == 0
    assert not driver.core.has_work
    grammar.gate.set()
    driver.core.close()


def test_who_loses_a_stream_over_it_computes_the_row_again(grammar: GatedGrammar) -> None:
    driver = Driver(FakeRunner(max_sequences=1))
    driver.add(gated(grammar))
    driver.step()
    urgent = dataclasses.replace(request("urgent", prompt=b"now"), traffic_class=TrafficClass.PRIORITY)
    driver.add(urgent)
    while "urgent" in driver.core._sequences:
        driver.step()
    grammar.gate.set()
    driver.run()
    assert len(json.loads(driver.text("late"))) == 6
    assert driver.usage("late").completion_tokens == len(driver.token_ids("late"))


def test_one_that_takes_too_long_ends_its_own_request(grammar: GatedGrammar) -> None:
    driver = Driver(FakeRunner())
    driver.add(gated(grammar, mask_timeout_s=0.0), request("free"))
    driver.run()
    assert driver.reason("late") is FinishReason.CONSTRAINT
    assert driver.reason("free") is FinishReason.LENGTH


def test_a_failure_of_llguidance_ends_its_own_request(grammar: GatedGrammar) -> None:
    grammar.error = RuntimeError("out of fuel")
    grammar.gate.set()
    driver = Driver(FakeRunner())
    driver.add(gated(grammar), request("free"))
    driver.run()
    assert driver.reason("late") is FinishReason.CONSTRAINT
    assert driver.reason("free") is FinishReason.LENGTH


def test_matcher_that_refuses_a_sampled_token_delivers_and_bills_it(
    grammar: GatedGrammar, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammar.gate.set()
    driver = Driver(FakeRunner())
    driver.add(gated(grammar), request("free"))
    monkeypatch.setattr(driver.core._sequences["late"].matcher, "accept", lambda token_id: False)
    driver.run()
    assert driver.reason("late") is FinishReason.CONSTRAINT
    assert len(driver.text("late")) == len(driver.token_ids("late")) == driver.usage("late").completion_tokens == 1
    assert driver.reason("free") is FinishReason.LENGTH


def test_slow_grammars_have_a_thread_to_themselves(grammar: GatedGrammar) -> None:
    grammar.gate.set()
    driver = Driver(FakeRunner())
    driver.add(gated(grammar, slow_mask_s=0.0))
    driver.run()
    first, *others = [name.rsplit("_", 1)[0] for name in grammar.threads]
    assert first == "inferd-mask"
    assert set(others) == {"inferd-slow-mask"}
