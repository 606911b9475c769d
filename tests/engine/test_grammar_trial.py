"""The trial's process when it cannot be had."""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import closing
from types import SimpleNamespace

import pytest

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar_trial import GrammarTrial
from inferd.errors import OverloadedError
from tests.fakes import GRAMMAR_VOCABULARY, constraint_compiler


class FakeProcess:
    """One that cannot be started, or that is gone at once."""

    def __init__(self, *, starts: bool) -> None:
        self._starts = starts
        self.killed = self.closed = False

    def start(self) -> None:
        if not self._starts:
            raise OSError("no more processes")

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
