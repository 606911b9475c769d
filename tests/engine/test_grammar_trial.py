"""The trial's process when it cannot be had."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from contextlib import closing
from types import SimpleNamespace

import pytest
from llguidance import LLMatcher

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar_trial import TOO_COMPLEX, GrammarTrial, TrialPool
from inferd.errors import OverloadedError
from tests.fakes import GRAMMAR_VOCABULARY, constraint_compiler

GOOD = LLMatcher.grammar_from_regex("ab?")


class FakeProcess:
    """One that cannot be started, or that is gone at once."""

    def __init__(self, *, starts: bool) -> None:
        self._starts = starts
        self.killed = self.closed = False

    def start(self) -> None:
        if not self._starts:
            raise OSError("no more processes")

    def is_alive(self) -> bool:
        return False

    def kill(self) -> None:
        assert self._starts, "what never started cannot be killed"
        self.killed = True

    def join(self) -> None:
        assert self.killed

    def close(self) -> None:
        self.closed = True


def use(monkeypatch: pytest.MonkeyPatch, process: FakeProcess) -> None:
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=lambda **_: process)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)


@pytest.mark.parametrize("starts", [False, True], ids=["never starts", "dies at once"])
def test_a_process_that_cannot_be_had_is_reported_each_time_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    process = FakeProcess(starts=starts)
    use(monkeypatch, process)
    trial = GrammarTrial(GRAMMAR_VOCABULARY)
    for _ in range(2):
        with pytest.raises(OSError, match=r"no more processes|does not start"):
            trial.run("start: A")
    trial.close()
    assert process.closed is starts


def test_whoever_sent_the_schema_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeProcess(starts=False))
    with closing(constraint_compiler()) as compiler, pytest.raises(OverloadedError, match="cannot be checked"):
        asyncio.run(compiler.compile(Constraint(ConstraintKind.REGEX, "a")))


def test_a_process_that_was_killed_from_outside_is_started_again_and_the_trial_repeated() -> None:
    with closing(GrammarTrial(GRAMMAR_VOCABULARY)) as trial:
        assert trial.run(GOOD) is None
        for kill in (signal.SIGKILL, signal.SIGTERM):
            killed = trial._process
            assert killed is not None
            os.kill(killed.pid or 0, kill)
            assert trial.run(GOOD) is None
            assert trial._process is not killed


def test_a_process_that_is_killed_in_the_midst_of_each_trial_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: GrammarTrial, grammar: str) -> str:
        assert self._process is not None
        self._process.kill()
        raise EOFError

    monkeypatch.setattr(GrammarTrial, "_run", killed)
    with closing(GrammarTrial(GRAMMAR_VOCABULARY)) as trial, pytest.raises(OSError, match="killed twice"):
        trial.run(GOOD)


def test_a_process_that_a_grammar_ended_is_a_verdict() -> None:
    chain = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(3800)} | {"a3800": {"type": "string"}}
    hostile = LLMatcher.grammar_from_json_schema(json.dumps({"$defs": chain, "$ref": "#/$defs/a0"}))
    with closing(GrammarTrial(GRAMMAR_VOCABULARY)) as trial:
        assert trial.run(hostile) == TOO_COMPLEX
        assert not trial.is_alive
        assert trial.run(GOOD) is None


def test_a_pool_keeps_one_process_more_than_are_in_use() -> None:
    with closing(TrialPool(GRAMMAR_VOCABULARY)) as pool:
        with pool.borrowed() as first:
            assert first.run(GOOD) is None
            starter = pool._starter
            if starter is not None:
                starter.join()
            (spare,) = pool._idle
            first._process.kill()  # type: ignore[union-attr]
            first._process.join()  # type: ignore[union-attr]
        with pool.borrowed() as second:
            assert second is spare
            assert second.run(GOOD) is None
