"""The engine thread, over a runner without weights. Each test has a guard against hanging; nothing else is timed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable

import pytest

from inferd.engine.backlog import Backlog
from inferd.engine.core import EngineCore
from inferd.engine.engine import MAX_CRASHES, Engine, EngineState, OutputStream
from inferd.engine.messages import AddRequest, FinishReason, RequestOutput
from inferd.engine.model_core import ModelCore
from inferd.errors import ConfigError, OverloadedError
from inferd.sampling_params import SamplingParams
from inferd.usage import Usage
from tests.engine.driver import request
from tests.fakes import FakeRunner

HANGS_AFTER_S = 60.0


class GatedRunner(FakeRunner):
    """Computes a step only when `gate` is open, so that a test knows where the thread is. `crashes` is how many
    steps raise from now on."""

    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        self.gate = threading.Event()
        self.gate.set()
        self.in_step = threading.Event()
        self.crashes = 0

    def shut(self) -> None:
        """Call it while the engine is idle: `in_step` then tells of the next step."""
        self.gate.clear()
        self.in_step.clear()

    def execute(self, batch):
        self.in_step.set()
        assert self.gate.wait(HANGS_AFTER_S), "the test left the gate shut"
        if self.crashes:
            self.crashes -= 1
            raise RuntimeError("broken")
        return super().execute(batch)


def run_engine(test: Callable[[Engine], Awaitable[None]], runner: FakeRunner, backlog: Backlog | None = None) -> Engine:
    """Starts an engine, runs the test, stops it, and checks that nobody was forgotten."""

    async def main() -> Engine:
        async with asyncio.timeout(HANGS_AFTER_S):
            engine = Engine("test", lambda: ModelCore({AddRequest: EngineCore(runner)}), backlog=backlog)
            await engine.start()
            assert engine.state is EngineState.READY
            await test(engine)
            await engine.stop()
            assert engine.num_live == 0
            assert engine._backlog._num_tokens == 0
            assert not engine._thread.is_alive()
            assert runner.closed
            return engine

    return asyncio.run(main())


async def read(stream: OutputStream) -> list[RequestOutput]:
    outputs: list[RequestOutput] = []
    assert await stream.forward(outputs.append) is outputs[-1]
    assert [output.finish_reason is not None for output in outputs] == [False] * (len(outputs) - 1) + [True]
    return outputs


async def in_step(runner: GatedRunner) -> None:
    """Waits until the thread stands at the shut gate."""
    assert await asyncio.to_thread(runner.in_step.wait, HANGS_AFTER_S), "no step began"


def text(outputs: list[RequestOutput]) -> str:
    return "".join(output.text for output in outputs)


def test_requests_are_answered_at_once_and_in_full() -> None:
    async def test(engine: Engine) -> None:
        prompts = [f"prompt {number}".encode() for number in range(12)]
        streams = [engine.submit(request(str(number), prompt, 20)) for number, prompt in enumerate(prompts)]
        assert engine.num_live == 12
        for prompt, outputs in zip(prompts, await asyncio.gather(*map(read, streams)), strict=True):
            assert text(outputs) == FakeRunner.continuation(prompt, 20).decode()
            assert outputs[-1].usage == Usage(len(prompt), 0, 20, outputs[-1].usage.compute_ms)
        assert engine.num_live == 0

    assert run_engine(test, FakeRunner()).state is EngineState.STOPPED


def test_what_loading_raises_start_raises() -> None:
    def build_core() -> ModelCore:
        raise ConfigError("no such model")

    async def main() -> None:
        engine = Engine("test", build_core)
        with pytest.raises(ConfigError, match="no such model"):
            await engine.start()
        assert engine.state is EngineState.FAILED
        with pytest.raises(OverloadedError):
            engine.submit(request())
        await engine.stop()

    asyncio.run(asyncio.wait_for(main(), HANGS_AFTER_S))


def test_an_engine_that_was_never_started_takes_nothing_and_stops() -> None:
    async def main() -> None:
        engine = Engine("test", lambda: ModelCore({AddRequest: EngineCore(FakeRunner())}))
        with pytest.raises(OverloadedError, match="starting"):
            engine.submit(request())
        await engine.stop()

    asyncio.run(asyncio.wait_for(main(), HANGS_AFTER_S))


def test_too_many_requests_are_refused_and_taken_again_when_there_is_room() -> None:
    runner = GatedRunner()

    async def test(engine: Engine) -> None:
        runner.shut()
        streams = [engine.submit(request(name)) for name in "ab"]
        with pytest.raises(OverloadedError) as refused:
            engine.submit(request("c"))
        # Two requests of 5 + 8 tokens, none of which has ended: what the engine expects of itself.
        expected = engine._backlog.retry_after_s(request("c"))
        assert refused.value.retry_after_s == expected != 5.0
        runner.gate.set()
        await asyncio.gather(*map(read, streams))
        await read(engine.submit(request("c")))

    run_engine(test, runner, Backlog(max_requests=2))


def test_too_many_tokens_are_refused_and_taken_again_when_there_is_room() -> None:
    runner = GatedRunner()

    async def test(engine: Engine) -> None:
        runner.shut()
        stream = engine.submit(request(prompt=b"x" * 12, max_tokens=4))
        with pytest.raises(OverloadedError):
            engine.submit(request("large", prompt=b"x", max_tokens=4))
        small = engine.submit(request("small", prompt=b"x", max_tokens=3))
        runner.gate.set()
        await asyncio.gather(read(stream), read(small))
        await read(engine.submit(request("large", prompt=b"x", max_tokens=4)))

    run_engine(test, runner, Backlog(max_tokens=20))


def test_abort_ends_those_who_run_and_those_who_wait() -> None:
    runner = GatedRunner(max_sequences=1)

    async def test(engine: Engine) -> None:
        runner.shut()
        running, waiting = engine.submit(request("running", max_tokens=200)), engine.submit(request("waiting"))
        await in_step(runner)
        for _ in range(2):
            engine.abort("running")
            engine.abort("waiting")
        runner.gate.set()
        for stream, usage in ((running, (5, 1)), (waiting, (0, 0))):
            last = (await read(stream))[-1]
            assert last.finish_reason is FinishReason.CANCELLED
            assert (last.usage.prompt_tokens, last.usage.completion_tokens) == usage

    run_engine(test, runner)


def test_abort_of_unknown_and_ended_requests_is_nothing() -> None:
    runner = FakeRunner()

    async def test(engine: Engine) -> None:
        engine.abort("nobody")
        await read(engine.submit(request()))
        engine.abort("r")
        assert text(await read(engine.submit(request()))) == runner.continuation(b"hello", 8).decode()

    run_engine(test, runner)


def test_the_last_request_to_be_aborted_ends_without_another_step() -> None:
    runner = GatedRunner()

    async def test(engine: Engine) -> None:
        runner.shut()
        stream = engine.submit(request(max_tokens=200))
        await in_step(runner)
        engine.abort("r")
        runner.gate.set()
        await read(stream)
        assert len(runner.rows_per_step) == 1

    run_engine(test, runner)


def test_a_step_that_crashes_ends_the_requests_of_that_moment_and_the_engine_goes_on() -> None:
    runner = GatedRunner(max_sequences=2)

    async def test(engine: Engine) -> None:
        for _ in range(2 * MAX_CRASHES):
            runner.shut()
            streams = [engine.submit(request(str(number))) for number in range(4)]
            await in_step(runner)
            runner.crashes = 1
            runner.gate.set()
            for outputs in await asyncio.gather(*map(read, streams)):
                assert outputs[-1].finish_reason is FinishReason.ERROR
                assert outputs[-1].error
            outputs = await read(engine.submit(request("next")))
            assert text(outputs) == runner.continuation(b"hello", 8).decode()

    assert run_engine(test, runner).state is EngineState.STOPPED


def test_an_engine_that_crashes_again_and_again_fails_and_every_stream_ends() -> None:
    runner = GatedRunner()

    async def test(engine: Engine) -> None:
        runner.crashes = MAX_CRASHES
        for number in range(MAX_CRASHES):
            (last,) = await read(engine.submit(request(str(number))))
            assert last.finish_reason is FinishReason.ERROR
        await engine._ended.wait()
        assert engine.state is EngineState.FAILED
        assert isinstance(engine.failure, RuntimeError)
        assert not runner.closed, "other threads may be reading the vocabulary"
        with pytest.raises(OverloadedError, match="failed"):
            engine.submit(request())

    run_engine(test, runner)


def test_what_has_ended_before_the_last_crash_keeps_its_own_end() -> None:
    runner = GatedRunner(max_sequences=2)

    async def test(engine: Engine) -> None:
        runner.crashes = MAX_CRASHES
        for number in range(MAX_CRASHES - 2):
            await read(engine.submit(request(str(number))))
        runner.shut()
        crashing = engine.submit(request("crashing"))
        await in_step(runner)
        # Taken in one turn, before the step that is the last straw.
        aborted, last = engine.submit(request("aborted")), engine.submit(request("last"))
        engine.abort("aborted")
        runner.gate.set()
        reasons = [(await read(stream))[-1].finish_reason for stream in (crashing, aborted, last)]
        assert reasons == [FinishReason.ERROR, FinishReason.CANCELLED, FinishReason.ERROR]

    assert run_engine(test, runner).state is EngineState.FAILED


def test_a_fault_while_it_stops_keeps_nobody_waiting(monkeypatch) -> None:
    runner = GatedRunner()

    def broken(core: EngineCore, error: str) -> None:
        raise RuntimeError(error)

    async def test(engine: Engine) -> None:
        await read(engine.submit(request("r")))
        monkeypatch.setattr(EngineCore, "abort_all", broken)

    assert run_engine(test, runner).state is EngineState.FAILED


def test_a_request_that_breaks_a_precondition_ends_alone() -> None:
    runner = GatedRunner()

    async def test(engine: Engine) -> None:
        runner.shut()
        good = engine.submit(request("good"))
        await in_step(runner)
        bad = AddRequest("bad", (10**6,), SamplingParams(), 1, tenant="team")
        streams = [engine.submit(bad), engine.submit(request("long", max_tokens=10_000)), good]
        runner.gate.set()
        reasons = [(await read(stream))[-1].finish_reason for stream in streams]
        assert reasons == [FinishReason.ERROR, FinishReason.ERROR, FinishReason.LENGTH]
        (last,) = await read(engine.submit(bad))
        assert (last.finish_reason, last.usage) == (FinishReason.ERROR, Usage())

    assert run_engine(test, runner).state is EngineState.STOPPED


def test_stop_ends_the_living_with_an_error() -> None:
    runner = GatedRunner(max_sequences=2)

    async def test(engine: Engine) -> None:
        runner.shut()
        streams = [engine.submit(request(str(number), max_tokens=200)) for number in range(5)]
        await in_step(runner)
        stopping = [asyncio.create_task(engine.stop()) for _ in range(2)]
        await asyncio.sleep(0)
        late = engine.submit(request("late"))  # behind the stop in the inbox: nobody will read it
        runner.gate.set()
        for stream in (*streams, late):
            last = (await read(stream))[-1]
            assert last.finish_reason is FinishReason.ERROR
            assert last.error
        await asyncio.gather(*stopping)
        with pytest.raises(OverloadedError, match="stopped"):
            engine.submit(request("too late"))

    assert run_engine(test, runner).state is EngineState.STOPPED


def test_a_stop_during_loading_waits_for_it() -> None:
    loading = threading.Event()
    runner = FakeRunner()

    def build_core() -> ModelCore:
        assert loading.wait(HANGS_AFTER_S), "the test never let it load"
        return ModelCore({AddRequest: EngineCore(runner)})

    async def main() -> None:
        engine = Engine("test", build_core)
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0)
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)
        loading.set()
        await asyncio.gather(starting, stopping)
        assert engine.state is EngineState.STOPPED
        assert runner.closed

    asyncio.run(asyncio.wait_for(main(), HANGS_AFTER_S))


def test_the_event_loop_is_woken_once_a_step_not_once_a_token() -> None:
    runner = GatedRunner(max_sequences=16)
    calls: list[str] = []

    async def test(engine: Engine) -> None:
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe

        def counting(callback, *args, **kwargs):
            calls.append(threading.current_thread().name)
            return original(callback, *args, **kwargs)

        loop.call_soon_threadsafe = counting
        await asyncio.gather(*(read(engine.submit(request(str(number), max_tokens=30))) for number in range(16)))
        assert calls.count("inferd-engine-test") <= len(runner.rows_per_step)
        assert len(runner.rows_per_step) < 16 * 30 / 4

    run_engine(test, runner)


@pytest.mark.parametrize("seed", range(5))
def test_no_request_hangs_whatever_clients_do(seed) -> None:
    dice = random.Random(seed)
    runner = GatedRunner(max_sequences=3)
    reasons: list[FinishReason | None] = []

    async def client(engine: Engine, number: int) -> None:
        await asyncio.sleep(dice.random() / 50)
        stream = engine.submit(request(str(number), bytes(range(1, 2 + dice.randrange(90))), dice.randrange(1, 30)))
        fate = dice.randrange(4)

        def take(_: RequestOutput) -> None:
            if fate == 0 or (fate == 1 and dice.random() < 0.2):
                engine.abort(stream.request_id)

        reasons.append((await stream.forward(take)).finish_reason)
        if fate == 2:
            engine.abort(stream.request_id)

    async def test(engine: Engine) -> None:
        clients = [asyncio.create_task(client(engine, number)) for number in range(60)]
        for _ in range(2):  # an engine gives up after three failed steps in a row
            await asyncio.sleep(dice.random() / 50)
            runner.crashes = 1
        await asyncio.gather(*clients)

    run_engine(test, runner)
    assert len(reasons) == 60
