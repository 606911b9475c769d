"""The compiler of constraints between tenants: equal grammars once, fair turns, hostile tenants wait."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar import compiler as constraint_compiler
from inferd.engine.grammar.compiler import (
    MAX_FATAL,
    MAX_IDLE_S,
    MAX_SOURCE_BYTES,
    WINDOW_S,
    ConstraintCache,
    ConstraintCompiler,
    GrammarError,
    Refusal,
)
from inferd.engine.grammar.trial import TOO_COMPLEX, UNFINISHED
from inferd.errors import OverloadedError, RateLimitError
from tests.fakes import GRAMMAR_VOCABULARY, _grammar_tokenizer
from tests.fakes import constraint_compiler as real_compiler

CHAIN = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(3500)} | {"a3500": {"type": "string"}}


class FakeTrials:
    """Trials that the test lets go one by one. A grammar with `fatal` in it ends the process, one with `slow` takes two
    seconds, one with `long` is not done in a quick trial."""

    def __init__(self, _vocabulary: object, _n_children: int) -> None:
        self.begun: list[str] = []
        self._changed = threading.Condition()
        self._num_allowed: int | None = None
        self.cpu_s = 0.0

    def hold_back(self) -> None:
        self._num_allowed = 0

    def allow(self, n: int | None) -> None:
        """`n` more of them; None: all."""
        with self._changed:
            self._num_allowed = None if n is None or self._num_allowed is None else self._num_allowed + n
            self._changed.notify_all()

    @contextmanager
    def borrowed(self) -> Iterator[FakeTrials]:
        yield self

    def run(self, grammar: str, *, is_quick: bool = False) -> str | None:
        with self._changed:
            self.begun.append(next(word for word in grammar.split('"') if word.startswith("g_")))
            self._changed.wait_for(lambda: self._num_allowed != 0, 20.0)
            if self._num_allowed is not None:
                self._num_allowed -= 1
        self.cpu_s = 2.0 if "slow" in grammar else 0.0
        if "long" in grammar and is_quick:
            return UNFINISHED
        return TOO_COMPLEX if "fatal" in grammar else None

    def close(self) -> None:
        pass


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[ConstraintCompiler]:
    monkeypatch.setattr(constraint_compiler, "TrialPool", FakeTrials)
    with closing(ConstraintCompiler(_grammar_tokenizer(), GRAMMAR_VOCABULARY, clock)) as made:
        yield made


@pytest.fixture
def trials(compiler: ConstraintCompiler) -> FakeTrials:
    fake: Any = compiler._trials
    return fake


def grammar(name: str) -> Constraint:
    return Constraint(ConstraintKind.LARK, f'start: "g_{name}"', "grammar")


async def settled(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it does not come true")


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60.0))  # type: ignore[arg-type]


def test_equal_new_grammars_have_one_trial(compiler, trials) -> None:
    async def main() -> None:
        found = await asyncio.gather(*(compiler.compile(grammar("a"), f"t{i % 4}") for i in range(40)))
        assert len(set(map(id, found))) == 1

    run(main)
    assert trials.begun == ["g_a"]


def test_a_refusal_reaches_all_that_wait_for_the_grammar(compiler, trials) -> None:
    async def main() -> None:
        asked = (compiler.compile(grammar("fatal"), f"t{i}") for i in range(3))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in found] == [GrammarError] * 3
        with pytest.raises(GrammarError):
            await compiler.compile(grammar("fatal"), "t9")

    run(main)
    assert trials.begun == ["g_fatal"], "a grammar that was refused is known"


def test_tenants_take_turns_and_live_requests_go_before_batches(compiler, trials) -> None:
    async def main() -> None:
        trials.hold_back()
        asked = [asyncio.ensure_future(compiler.compile(grammar(f"first{i}"), "f")) for i in range(2)]
        await settled(lambda: len(trials.begun) == 2)
        order = [("b", 0, True), ("b", 1, True), ("a", 0, False), ("a", 1, False), ("a", 2, False), ("c", 0, False)]
        for tenant, number, is_batch in order:
            name = f"{tenant}{number}"
            asked.append(asyncio.ensure_future(compiler.compile(grammar(name), tenant, is_batch=is_batch)))
            await asyncio.sleep(0)
        for n in range(3, 5):
            trials.allow(1)
            await settled(lambda n=n: len(trials.begun) == n)
        trials.allow(None)
        await asyncio.gather(*asked)

    run(main)
    assert trials.begun[2:4] == ["g_a0", "g_c0"]
    assert trials.begun[-2:] == ["g_b0", "g_b1"]


def test_a_live_request_takes_over_what_a_batch_waits_for(compiler, trials) -> None:
    async def main() -> None:
        trials.hold_back()
        asked = [asyncio.ensure_future(compiler.compile(grammar(f"slow{i}"), f"t{i}")) for i in range(2)]
        await settled(lambda: len(trials.begun) == 2)
        for name in ("x", "y"):
            asked.append(asyncio.ensure_future(compiler.compile(grammar(name), "b", is_batch=True)))
        await asyncio.sleep(0)
        asked.append(asyncio.ensure_future(compiler.compile(grammar("y"), "live")))
        await asyncio.sleep(0)
        trials.allow(None)
        found = await asyncio.gather(*asked)
        assert found[3] is found[4]

    run(main)
    assert trials.begun[2:] == ["g_y", "g_x"]


def test_a_tenant_with_slow_trials_leaves_the_first_lane_to_others(compiler, trials) -> None:
    async def main() -> None:
        await asyncio.gather(compiler.compile(grammar("slow_a"), "a"), compiler.compile(grammar("slow_b"), "b"))
        trials.hold_back()
        asked = [
            asyncio.ensure_future(compiler.compile(grammar(f"slow_{tenant}{i}"), tenant))
            for tenant in "ab"
            for i in range(3)
        ]
        await settled(lambda: len(trials.begun) == 3)
        await asyncio.sleep(0.05)
        assert len(trials.begun) == 3, "one of the two lanes is free"
        quick = asyncio.ensure_future(compiler.compile(grammar("quick"), "c"))
        await settled(lambda: len(trials.begun) == 4)
        assert trials.begun[-1] == "g_quick"
        trials.allow(None)
        await asyncio.gather(quick, *asked)

    run(main)


def test_a_trial_that_is_not_quick_goes_on_in_the_second_lane(compiler, trials) -> None:
    async def main() -> None:
        found = await asyncio.gather(*(compiler.compile(grammar("long"), f"t{i}") for i in range(3)))
        assert len(set(map(id, found))) == 1
        await compiler.compile(grammar("next"), "t0")

    run(main)
    assert trials.begun == ["g_long", "g_long", "g_next"]


def test_a_tenant_whose_grammars_end_the_process_waits_and_is_told_how_long(compiler, trials, clock) -> None:
    async def main() -> None:
        known = await compiler.compile(grammar("good"), "t")
        for i in range(MAX_FATAL):
            clock.now_s += 10.0
            with pytest.raises(GrammarError):
                await compiler.compile(grammar(f"fatal{i}"), "t")
        clock.now_s += 5.0
        with pytest.raises(RateLimitError) as limited:
            await compiler.compile(grammar("new"), "t")
        assert limited.value.retry_after_s == WINDOW_S - 10.0 * (MAX_FATAL - 1) - 5.0
        with pytest.raises(OverloadedError):
            await compiler.compile(grammar("new"), "t", is_batch=True)
        assert await compiler.compile(grammar("good"), "t") is known
        await compiler.compile(grammar("new"), "other")
        clock.now_s += limited.value.retry_after_s
        await compiler.compile(grammar("newer"), "t")

    run(main)


def test_grammars_that_waited_when_the_limit_was_reached_are_not_tried(compiler, trials) -> None:
    async def main() -> None:
        asked = (compiler.compile(grammar(f"fatal{i}"), "t") for i in range(12))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(each, RateLimitError) for each in found) >= 12 - MAX_FATAL - 1

    run(main)
    assert len(trials.begun) <= MAX_FATAL + 1


def test_a_tenant_cannot_evict_grammars_of_another_that_has_fewer() -> None:
    cache = ConstraintCache(max_entries=8)
    keys = [(ConstraintKind.LARK, str(number)) for number in range(40)]
    entry = Refusal("no")
    cache.put(keys[0], "a", entry)
    cache.put(keys[1], "a", entry)
    for key in keys[2:]:
        cache.put(key, "b", entry)
    assert [cache.get(key, "a") for key in keys[:2]] == [entry, entry]
    assert sum(key in cache._entries for key in keys) == 8
    assert cache.get(keys[2], "b") is None
    assert cache.get(keys[39], "b") is entry


def test_grammar_that_was_not_used_for_five_minutes_is_dropped_with_the_next_one():
    now_s = 0.0
    cache = ConstraintCache(clock_s=lambda: now_s)
    first, second, third = ((ConstraintKind.LARK, text) for text in ("first", "second", "third"))
    cache.put(first, "acme", Refusal("no"))
    cache.put(second, "beta", Refusal("no"))
    now_s = MAX_IDLE_S - 1
    assert cache.get(second, "beta") is not None
    now_s = MAX_IDLE_S
    cache.put(third, "acme", Refusal("no"))
    assert cache.get(first, "acme") is None
    assert cache.get(second, "beta") is not None


def test_a_grammar_of_two_tenants_is_kept_until_both_have_lost_it() -> None:
    cache = ConstraintCache(max_entries=4)
    keys = [(ConstraintKind.LARK, str(number)) for number in range(20)]
    entry = Refusal("no")
    for tenant in ("a", "b"):
        cache.put(keys[0], tenant, entry)
    for key in keys[1:]:
        cache.put(key, "b", entry)
    assert cache.get(keys[0], "c") is entry


def test_four_hostile_tenants_and_a_batch_leave_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """With real processes; each hostile schema ends one."""

    async def hostile(compiler: ConstraintCompiler, tenant: str, n: int, *, is_batch: bool = False) -> list[Any]:
        found = []
        for i in range(n):
            source = json.dumps({"$defs": CHAIN, "$ref": "#/$defs/a0", "title": f"{tenant}{i}"})
            asked = compiler.compile(Constraint(ConstraintKind.JSON_SCHEMA, source), tenant, is_batch=is_batch)
            found += await asyncio.gather(asked, return_exceptions=True)
        return found

    async def main() -> None:
        with closing(real_compiler()) as compiler:
            attacks = [asyncio.ensure_future(hostile(compiler, f"h{i}", 4)) for i in range(4)]
            attacks.append(asyncio.ensure_future(hostile(compiler, "batch", 3, is_batch=True)))
            for i in range(10):
                await compiler.compile(Constraint(ConstraintKind.REGEX, f"honest{i}"), "honest")
            for found in await asyncio.gather(*attacks):
                assert set(map(type, found)) <= {GrammarError, RateLimitError}

    assert len(json.dumps(CHAIN)) < MAX_SOURCE_BYTES
    run(main)
