"""The threads that tokenise: whose turn it is, what a team may take of them, and how jobs end early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from inferd.errors import OverloadedError, RateLimitError
from inferd.serving.tokenizer_pool import TokenizerPool
from inferd.tokenizer import Check

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0


@asynccontextmanager
async def pool_of(num_threads: int = 2, **bounds: int) -> AsyncIterator[TokenizerPool]:
    pool = TokenizerPool(num_threads, **({"max_running": 1} | bounds))
    async with asyncio.timeout(PATIENCE_S):
        yield pool
        await pool.close()


class Stuck:
    """Work that checks every millisecond, until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.began = threading.Event()

    def __call__(self, check: Check) -> str:
        self.began.set()
        while not self.let_go.wait(0.001):
            check()
        return "done"


async def begun(work: Stuck) -> None:
    assert await asyncio.to_thread(work.began.wait, PATIENCE_S)


async def test_pool_returns_results_and_raises_errors():
    async with pool_of() as pool:
        assert await pool.run("acme", lambda _: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await pool.run("acme", lambda _: 1 // 0)
        assert (pool.num_running, pool.num_waiting) == (0, 0)


async def test_pool_bounds_the_running_jobs_of_a_team():
    async with pool_of() as pool:
        first, second = Stuck(), Stuck()
        hogs = [asyncio.create_task(pool.run("hog", work)) for work in (first, second)]
        await begun(first)
        assert await pool.run("acme", lambda _: "served") == "served"
        assert not second.began.is_set()
        first.let_go.set()
        second.let_go.set()
        assert await asyncio.gather(*hogs) == ["done", "done"]


async def test_pool_serves_waiting_teams_in_turn():
    async with pool_of(1) as pool:
        gate, order = Stuck(), []
        first = asyncio.create_task(pool.run("hog", gate))
        await begun(gate)
        names = ["hog", "hog", "hog", "acme", "beta", "acme"]
        rest = [asyncio.create_task(pool.run(name, lambda _, name=name: order.append(name))) for name in names]
        await asyncio.sleep(0)
        gate.let_go.set()
        await asyncio.gather(first, *rest)
        assert order == ["hog", "acme", "beta", "hog", "acme", "hog"]


async def test_pool_drops_the_waiting_job_of_a_cancelled_caller():
    async with pool_of(1) as pool:
        gate, never = Stuck(), Stuck()
        first = asyncio.create_task(pool.run("acme", gate))
        await begun(gate)
        waiting = asyncio.create_task(pool.run("acme", never))
        await asyncio.sleep(0)
        assert pool.num_waiting == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        assert pool.num_waiting == 0
        gate.let_go.set()
        await first
        assert not never.began.is_set()


async def test_pool_ends_the_running_job_of_a_cancelled_caller_at_its_next_check():
    async with pool_of(1) as pool:
        stuck = Stuck()
        running = asyncio.create_task(pool.run("acme", stuck))
        await begun(stuck)
        running.cancel()
        assert await pool.run("acme", lambda _: "next") == "next"
        assert not stuck.let_go.is_set()


async def test_pool_refuses_a_team_with_too_many_waiting_jobs():
    async with pool_of(1, max_waiting=2) as pool:
        gate = Stuck()
        jobs = [asyncio.create_task(pool.run("hog", gate))]
        await begun(gate)
        jobs += [asyncio.create_task(pool.run("hog", lambda _: "done")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitError) as refusal:
            await pool.run("hog", lambda _: "too many")
        assert refusal.value.code == "too_many_prompts"
        other = asyncio.create_task(pool.run("acme", lambda _: "another team's"))
        gate.let_go.set()
        assert await asyncio.gather(*jobs, other) == ["done", "done", "done", "another team's"]


async def test_pool_close_refuses_waiting_jobs_and_ends_running_ones():
    async with pool_of(1) as pool:
        stuck = Stuck()
        jobs = [asyncio.create_task(pool.run("acme", stuck))]
        await begun(stuck)
        jobs.append(asyncio.create_task(pool.run("acme", lambda _: "never")))
        await asyncio.sleep(0)
        await pool.close()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(result) for result in results] == [OverloadedError, OverloadedError]
        with pytest.raises(OverloadedError):
            await pool.run("acme", lambda _: "late")
