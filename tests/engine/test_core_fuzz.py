"""Random traffic over everything that the cache and the scheduler can do, one long life of one core: what each request
says is what a lone, cold run says, and books and memory agree to the token after every step."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest

from inferd.constraint import ConstraintKind
from inferd.engine.core import EngineCore
from inferd.engine.grammar.constraint import Matcher
from inferd.engine.kv.cache import KVCache
from inferd.engine.kv.partitioned import PartitionedKVCache
from inferd.engine.kv.prefix_cache import PrefixCache
from inferd.engine.kv.unified import UnifiedKVCache
from inferd.engine.logits.sampling import TokenSampling, log_softmax
from inferd.engine.messages import AddRequest, FinishReason, TrafficClass
from inferd.engine.scheduler import Scheduler
from inferd.engine.sequence import MAX_CELL_PREEMPTIONS
from inferd.sampling_params import SamplingParams
from tests.engine.driver import Driver
from tests.fake_cells import UnifiedFakeRunner
from tests.fake_copier import LETTERS as FEW_LETTERS
from tests.fake_copier import CopyingFakeRunner, CopyingUnifiedFakeRunner
from tests.fakes import Failure, FakeClock, FakeRunner, compiled

KINDS = {
    "plain": {},
    "window": {"window_size": 24, "window_slack": 8},
    "wide window": {"window_size": 24, "window_slack": 1000},
    "recurrent": {"cuts": False},
    "unknown": {"reuses": False},
}
CELLS = 160
POOL = 230
"""Cells of the unified layout: four sequences do not fit, one and a half of the longest do."""
LAYOUTS = {
    "partitioned": dict(KINDS),
    "unified": {kind: options for kind, options in KINDS.items() if kind not in ("recurrent", "wide window")},
}
CASES = [(layout, kind) for layout, kinds in LAYOUTS.items() for kind in kinds]
LETTERS = compiled(ConstraintKind.REGEX, "[a-z]*")
"""What every text of the fakes matches: masks come, and come late, and change nothing."""
HOST_BYTES = {"no": 0, "little": 2_000, "much": 15_000}


class Life:
    """Draws operations and plays them; knows what each request has to say."""

    def __init__(self, layout: str, kind: str, host_bytes: int, seed: int, *, copies: bool = False) -> None:
        self.rng = random.Random(seed)
        self.clock = FakeClock()
        partitioned = CopyingFakeRunner if copies else FakeRunner
        unified = CopyingUnifiedFakeRunner if copies else UnifiedFakeRunner
        fakes = {
            "partitioned": partial(partitioned, max_sequences=4),
            "unified": partial(unified, max_running=4, max_sequences=8, num_pool_cells=POOL),
        }
        self.copies = copies
        self.runner = fakes[layout](
            max_rows=self.rng.choice([16, 48]),
            cells_per_sequence=CELLS,
            clock=self.clock,
            step_ms=5.0,
            row_ms=1.0,
            **LAYOUTS[layout][kind],
        )
        self.driver = Driver(self.runner, self.clock, host_cache_bytes=host_bytes, max_step_ms=40.0)
        self.systems = [self.noise(60) for _ in range(3)]
        self.prompts: dict[str, bytes] = {}
        self.live: list[str] = []
        self.ended: list[str] = []
        self.sequences: dict[str, object] = {}

    def play(self, n_operations: int) -> None:
        for _ in range(n_operations):
            often = [self.submit, self.fork, self.steps]
            rarely = [self.cancel, self.fail, self.spoil, self.evict, self.wait, self.alone]
            weights = [10, 6, 20, 2, 2, 1, 1, 1, 4 if self.copies else 0]
            self.rng.choices([*often, *rarely], weights)[0]()
            self.settle()
        self.driver.run()
        self.settle()
        assert not self.live
        if isinstance(self.runner, UnifiedFakeRunner):
            assert self.runner.num_no_room == 0, "the account is exact: no step ever lacked cells"

    def submit(self) -> None:
        system = self.rng.choice(self.systems)
        self.ask(system[: self.rng.randint(0, 60)] + self.noise(self.rng.randint(1, 30)))

    def fork(self) -> None:
        """Goes on from what an ended request had said, or from a part of it."""
        if self.ended:
            name = self.rng.choice(self.ended[-8:])
            said = self.prompts[name] + self.driver.text(name).encode()
            kept = said if self.rng.random() < 0.7 else said[: self.rng.randint(1, len(said))]
            self.ask((kept + self.noise(self.rng.randint(0, 8)))[: CELLS - 20])

    def ask(self, prompt: bytes, max_tokens: int | None = None) -> None:
        if len(self.live) >= 12:
            return self.steps()
        name = f"r{len(self.prompts)}"
        self.prompts[name] = prompt
        tenant = self.rng.choice("abc")
        request = AddRequest(
            name,
            tuple(prompt),
            SamplingParams(prompt_logprobs=1 if len(self.prompts) % 4 == 1 else None),
            max_tokens or self.rng.randint(1, 20),
            tenant,
            cache_scope=tenant,
            session=self.rng.choice([None, "s", "t"]),
            traffic_class=self.rng.choice(list(TrafficClass)),
            constraint=LETTERS if len(self.prompts) % 5 == 0 else None,
        )
        self.driver.add(request)
        self.sequences[name] = self.driver.core._sequences[name]
        self.live.append(name)
        return None

    def noise(self, n_bytes: int) -> bytes:
        return bytes(self.rng.choices(FEW_LETTERS, k=n_bytes)) if self.copies else self.rng.randbytes(n_bytes)

    def alone(self) -> None:
        """One that copies, with the engine to itself for a while."""
        self.driver.run()
        self.settle()
        self.ask((self.rng.choice(self.systems) * 2)[: self.rng.randint(30, 100)], max_tokens=self.rng.randint(20, 60))
        for _ in range(self.rng.randint(2, 12)):
            self.driver.step()

    def steps(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            self.driver.step()

    def cancel(self) -> None:
        if self.live:
            self.driver.abort(self.rng.choice(self.live))

    def fail(self) -> None:
        code = self.rng.choice([1, 2, -1, -3])
        self.runner.failures.append(Failure(code, self.rng.randint(0, 30), self.rng.randint(0, 4)))

    def spoil(self) -> None:
        self.runner.num_restores_to_fail = 1

    def evict(self) -> None:
        """A branch in host RAM goes, as if the budget had been used up by others."""
        cache = self.driver.core._kv_cache._prefix_cache
        if in_host := [branch for branch in cache.branches() if branch.state is not None]:
            cache.drop(self.rng.choice(in_host))

    def wait(self) -> None:
        self.clock.advance_ms(self.rng.choice([10, 3_000, 20_000]))

    def settle(self) -> None:
        """Checks those that have ended."""
        for name in [n for n in self.live if self.driver.outputs[n] and self.driver.outputs[n][-1].finish_reason]:
            self.live.remove(name)
            self.check(name)
            if self.driver.reason(name) is not FinishReason.ERROR:
                self.ended.append(name)

    def check(self, name: str) -> None:
        prompt, sequence = self.prompts[name], self.sequences[name]
        num_tokens = len(self.driver.token_ids(name))
        assert self.driver.text(name).encode() == self.runner.continuation(prompt, num_tokens)
        usage = self.driver.usage(name)
        assert usage.completion_tokens == num_tokens
        assert usage.cached_tokens < len(prompt)
        assert usage.prompt_tokens == len(prompt) if num_tokens else usage.prompt_tokens <= len(prompt)
        self.check_prompt_logprobs(name)
        if self.driver.reason(name) is FinishReason.LENGTH:
            assert num_tokens == sequence.request.max_tokens
        if sequence.request.traffic_class is not TrafficClass.BATCH:
            assert sequence.num_cell_preemptions <= MAX_CELL_PREEMPTIONS

    def check_prompt_logprobs(self, name: str) -> None:
        """Each token of a prompt is scored once, by a row that has all before it in memory."""
        prompt, sequence = self.prompts[name], self.sequences[name]
        scored = [one for output in self.driver.outputs[name] for one in output.prompt_logprobs]
        if sequence.request.params.prompt_logprobs is None:
            assert scored == []
            return
        assert self.driver.usage(name).cached_tokens == 0, "what has to be computed is billed in full"
        assert bytes(one.token_id for one in scored) == prompt[: len(scored)]
        assert len(scored) == len(prompt) or not self.driver.token_ids(name)
        for place, one in enumerate(scored[1:], start=1):
            expected = log_softmax(self.runner.logits_of(list(prompt[:place])))
            assert one.logprob == pytest.approx(expected[one.token_id], abs=1e-5)


def counted(monkeypatch) -> Counter[str]:
    """Counts what happens, so that a life in which nothing happened proves nothing."""
    happened: Counter[str] = Counter()
    verify = EngineCore._verify

    def verifying(core, chunk, row):
        before = chunk.sequence.num_completion_tokens
        verify(core, chunk, row)
        n_accepted = chunk.sequence.num_completion_tokens - before
        happened.update(accepted=n_accepted, rejected=len(chunk.draft) - n_accepted)

    monkeypatch.setattr(EngineCore, "_verify", verifying)
    for owner, method in [
        (Scheduler, "_preempt"),
        (PartitionedKVCache, "_take_over"),
        (PartitionedKVCache, "_move_away"),
        (KVCache, "recover"),
        (UnifiedKVCache, "_share"),
        (UnifiedKVCache, "_evict"),
        (UnifiedKVCache, "_restore"),
        (UnifiedKVCache, "_merge"),
        (UnifiedKVCache, "evict_all_parked"),
        (PrefixCache, "shorten"),
        (PrefixCache, "move_to_host"),
        (FakeRunner, "restore_seq"),
        (FakeRunner, "seq_cp"),
        (EngineCore, "abort"),
        (TokenSampling, "wait"),
    ]:
        original = getattr(owner, method)

        def counting(*args, _original=original, _method=method, **names):
            happened[_method] += 1
            return _original(*args, **names)

        monkeypatch.setattr(owner, method, counting)
    return happened


def make_masks_late(monkeypatch, rng: random.Random) -> None:
    """One in four is not there when it is asked for, whatever the clock says."""
    is_ready = Matcher.is_ready
    monkeypatch.setattr(Matcher, "is_ready", lambda matcher, _: is_ready(matcher, 20.0) and rng.random() < 0.75)
    monkeypatch.setattr(Matcher, "has_timed_out", False)


def expect_much_happened(happened: Counter[str], layout: str, kind: str, host: str) -> None:
    wanted = {"_preempt", "recover", "abort", "wait"}
    if layout == "unified":
        wanted |= {"evict_all_parked"}
        if kind != "unknown":
            wanted |= {"_share", "_evict"} | ({"_restore", "_merge"} if host == "much" and kind == "plain" else set())
        if kind == "plain" and host == "no":
            wanted |= {"shorten"}
        assert not wanted - happened.keys(), happened
        return
    if kind != "unknown":
        wanted |= {"_move_away"} | ({"move_to_host", "restore_seq"} if host == "much" else set())
    if kind in ("plain", "wide window"):
        wanted |= {"_take_over", "seq_cp"}
    assert not wanted - happened.keys(), happened


@pytest.mark.parametrize("host", HOST_BYTES)
@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_a_life_of_random_operations(layout, kind, host, monkeypatch) -> None:
    happened = counted(monkeypatch)
    make_masks_late(monkeypatch, random.Random(3))
    Life(layout, kind, HOST_BYTES[host], seed=1).play(500)
    expect_much_happened(happened, layout, kind, host)


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_a_life_of_sequences_that_copy(layout, kind, monkeypatch) -> None:
    copying_life(layout, kind, monkeypatch, seed=3, n_operations=250)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_a_life_of_ten_thousand_operations_of_sequences_that_copy(layout, kind, monkeypatch) -> None:
    copying_life(layout, kind, monkeypatch, seed=4, n_operations=10_000)


def copying_life(layout: str, kind: str, monkeypatch, *, seed: int, n_operations: int) -> None:
    happened = counted(monkeypatch)
    Life(layout, kind, HOST_BYTES["little"], seed, copies=True).play(n_operations)
    assert happened["recover"] > 0
    if "window" in kind or kind == "plain":
        assert min(happened["accepted"], happened["rejected"]) > n_operations / 4, happened
    else:
        assert happened["accepted"] + happened["rejected"] == 0, "memory that cannot be cut has no drafts"


@pytest.mark.slow
@pytest.mark.parametrize("host", ["little", "much"])
@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_a_life_of_ten_thousand_operations(layout, kind, host, monkeypatch) -> None:
    happened = counted(monkeypatch)
    make_masks_late(monkeypatch, random.Random(3))
    Life(layout, kind, HOST_BYTES[host], seed=2).play(10_000)
    expect_much_happened(happened, layout, kind, host)
