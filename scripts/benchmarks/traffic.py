"""Workloads of service tiers: what batch costs the others, what priority is worth, and what time is billed."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from contextlib import suppress

from scripts.benchmarks.client import Answer
from scripts.benchmarks.load import Figures, Load
from scripts.benchmarks.prompts import system, user, words

N_DEFAULT = 4
N_ROUNDS = 6
N_BATCH = 24
N_SATURATING = 32
N_PRIORITY = 12
ANSWER_TOKENS = 32


async def beside_batch(load: Load) -> Figures:
    """4 users ask one question after the other: alone, then while more batch work waits than there are streams."""
    alone = await _users(load, 0)
    pressure = [asyncio.create_task(_repeat(load, 100 + i, 128, service_tier="flex")) for i in range(N_BATCH)]
    await asyncio.sleep(3.0)
    beside = await _users(load, 1)
    await _stop(pressure)
    gaps = [_gap_p50_ms(answers) for answers in (alone, beside)]
    ttfts = [_ttft_p50_ms(answers) for answers in (alone, beside)]
    return {
        "alone_gap_p50_ms": gaps[0],
        "beside_gap_p50_ms": gaps[1],
        "gap_times": gaps[1] / gaps[0],
        "alone_ttft_p50_ms": ttfts[0],
        "beside_ttft_p50_ms": ttfts[1],
        "ttft_times": ttfts[1] / ttfts[0],
    }


async def priority(load: Load) -> Figures:
    """Twice as many default users as there are streams, each asking again at once; a priority request now and then."""
    started = time.perf_counter()
    default: list[Answer] = []
    pressure = [asyncio.create_task(_repeat(load, i, 48, into=default)) for i in range(N_SATURATING)]
    await asyncio.sleep(5.0)
    preferred = []
    for i in range(N_PRIORITY):
        preferred.append(await load.ask([user(f"Say {words(3, 700 + i)}.")], 8, service_tier="priority"))
        await asyncio.sleep(1.0)
    await _stop(pressure)
    answered = [answer for answer in default if answer.token_times_s and answer.started_s > started]
    figures = {"priority_ttft_p50_ms": _ttft_p50_ms(preferred), "default_ttft_p50_ms": _ttft_p50_ms(answered)}
    return figures | {"priority_share": figures["priority_ttft_p50_ms"] / figures["default_ttft_p50_ms"]}


async def billed_time(load: Load) -> Figures:
    """Mixed requests to a deployment that is billed by time: together they never pay for more than there was."""

    async def one(i: int) -> list[Answer]:
        turns = [system(words(40 + 60 * (i % 5), 40 + i % 3)), user(f"Write about {words(3, i)}.")]
        tier = ("default", "priority", "flex")[i % 3]
        return [
            await load.ask(turns, 8 + 16 * (i % 4), model="bench/timed", service_tier=tier) for _ in range(2 + i % 2)
        ]

    started = time.perf_counter()
    answers = list(itertools.chain.from_iterable(await asyncio.gather(*(one(i) for i in range(24)))))
    wall_s = time.perf_counter() - started
    billed_s = sum(answer.compute_ms for answer in answers) / 1e3
    return {"requests": float(len(answers)), "wall_s": wall_s, "billed_s": billed_s, "billed_share": billed_s / wall_s}


async def _users(load: Load, seed: int) -> list[Answer]:
    async def one(i: int) -> list[Answer]:
        return [
            await load.ask([user(f"Write about {words(3, 1000 * seed + 10 * i + turn)}.")], ANSWER_TOKENS)
            for turn in range(N_ROUNDS)
        ]

    return list(itertools.chain.from_iterable(await asyncio.gather(*(one(i) for i in range(N_DEFAULT)))))


async def _repeat(load: Load, seed: int, max_tokens: int, into: list[Answer] | None = None, **fields: object) -> None:
    """Asks for ever, something new each time."""
    for turn in itertools.count():
        answer = await load.ask([user(f"Tell about {words(4, 5000 + 100 * seed + turn)}.")], max_tokens, **fields)
        if into is not None:
            into.append(answer)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


def _gap_p50_ms(answers: list[Answer]) -> float:
    return statistics.median(gap for answer in answers for gap in answer.gaps_s) * 1e3


def _ttft_p50_ms(answers: list[Answer]) -> float:
    return statistics.median(answer.ttft_s for answer in answers) * 1e3
