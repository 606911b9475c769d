"""The trial's process when it cannot be had."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import closing, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace

import pytest
from llguidance import LLMatcher

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar.trial import TOO_COMPLEX, TRIAL_CPU_S, UNFINISHED, GrammarTrial, TrialPool
from inferd.errors import OverloadedError
from tests.fakes import GRAMMAR_VOCABULARY, constraint_compiler

GOOD = LLMatcher.grammar_from_regex("ab?")
SLOW = LLMatcher.grammar_from_lark("start: A\nA: " + " & ".join(f"/(.*a){{{i}}}.*/" for i in range(1, 40)))
"""It takes more processor time than a trial has."""


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


def test_a_child_that_was_killed_is_started_again_and_the_trial_repeated() -> None:
    with closing(GrammarTrial(GRAMMAR_VOCABULARY)) as trial:
        assert trial.run(GOOD) is None
        for kill in (signal.SIGKILL, signal.SIGTERM):
            killed = trial._process
            assert killed is not None
            os.kill(killed.pid or 0, kill)
            assert trial.run(GOOD) is None
            assert trial._process is not killed


@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
def children_of_this_process() -> set[int]:
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for pids in lists for pid in pids.read_text().split()}


def test_a_child_that_is_killed_before_it_reads_its_vocabulary_is_told_at_once() -> None:
    large = replace(GRAMMAR_VOCABULARY, tokens=(*GRAMMAR_VOCABULARY.tokens, *[b"a" * 64] * 20_000))
    trial, failures = GrammarTrial(large), list[OSError]()

    def start() -> None:
        try:
            trial.start()
        except OSError as error:
            failures.append(error)

    resource_tracker.ensure_running()  # a child, too
    before = children_of_this_process()
    starter = threading.Thread(target=start, daemon=True)
    starter.start()
    while not (children := children_of_this_process() - before):
        starter.join(0.001)
    for child in children:
        os.kill(child, signal.SIGKILL)
    starter.join(30)
    assert not starter.is_alive()
    assert len(failures) == 1


def test_a_trial_that_is_killed_from_outside_each_time_is_no_verdict() -> None:
    """The forked process is found by its parent, as a system short of memory would find it."""
    with closing(GrammarTrial(GRAMMAR_VOCABULARY)) as trial:
        trial.start()
        assert trial._process is not None
        parent, killed, is_over = trial._process.pid, 0, threading.Event()

        def kill_children() -> None:
            nonlocal killed
            while not is_over.is_set():
                for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                        killed += 1

        killer = threading.Thread(target=kill_children)
        killer.start()
        try:
            with pytest.raises(OSError, match="killed twice"):
                trial.run(SLOW)
        finally:
            is_over.set()
            killer.join()
        assert killed >= 2
        assert trial.run(GOOD) is None


def test_a_child_outlives_what_a_grammar_does_to_its_trial() -> None:
    chain = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(3800)} | {"a3800": {"type": "string"}}
    overflows = LLMatcher.grammar_from_json_schema(json.dumps({"$defs": chain, "$ref": "#/$defs/a0"}))
    with closing(GrammarTrial(GRAMMAR_VOCABULARY)) as trial:
        for grammar in (overflows, SLOW):
            assert trial.run(grammar) == TOO_COMPLEX
            child = trial._process
            assert trial.run(GOOD) is None
            assert trial._process is child
        assert trial.cpu_s < TRIAL_CPU_S
        assert trial.run(SLOW, is_quick=True) == UNFINISHED
        assert 0.0 < trial.cpu_s < TRIAL_CPU_S, "the timer counts in ticks"


def test_all_children_of_a_pool_are_started_with_the_first_trial() -> None:
    with closing(TrialPool(GRAMMAR_VOCABULARY, 2)) as pool:
        with pool.borrowed() as first:
            assert first.run(GOOD) is None
            starter = pool._starter
            if starter is not None:
                starter.join()
            (other,) = pool._idle
            assert other.is_alive
            with pool.borrowed() as second:
                assert second is other
                assert second.run(GOOD) is None
        assert len(pool._idle) == 2
    assert not any(trial.is_alive for trial in pool._idle)
