"""What is asked of a server, and what is taken down."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scripts.benchmarks.client import Answer
from scripts.benchmarks.holding import held_connections
from scripts.benchmarks.load import Figures, Load, cached_share, times, together, tokens_per_s
from scripts.benchmarks.prompts import assistant, system, user, words
from scripts.benchmarks.speculation import speculate_copy, speculate_free
from scripts.benchmarks.traffic import beside_batch, billed_time, priority

SHARED_WORDS = 800  # about 1,200 tokens
LONG_WORDS = 1900  # about 3,100 tokens
ANSWER_TOKENS = 24
N_STREAMS = 16
LONG_TOKENS = 3000
N_FILLING = 40  # of about 28 MB each: 16 streams, and more than 512 MiB


@dataclass(frozen=True, slots=True)
class Workload:
    """One load on one freshly started server.

    Attributes:
        only_inferd: it measures inferd against itself, or needs what no peer has.
        two_engines: beside one that does without speculation.
        host_cache_mib: inferd's `host_cache_mib`.
        n_users: of a workload that the oracle can do too.
    """

    run: Callable[[Load], Awaitable[Figures]]
    only_inferd: bool = False
    two_teams: bool = False
    two_engines: bool = False
    host_cache_mib: int = 4096
    n_users: int | None = None


async def warm(load: Load) -> None:
    """The first request of a process loads what is loaded late; nobody's first request is measured."""
    await load.ask([system("x"), user("Say hello.")], 4)


async def one_stream(load: Load) -> Figures:
    """Three stories, one after the other: the median counts."""
    rates, ttfts = [], []
    for subject in ("bridge", "lantern", "violin"):
        (answer,), wall_s = await together([load.ask([user(f"Tell me a long story about a {subject}.")], 96)])
        rates.append(tokens_per_s([answer], wall_s))
        ttfts.append(answer.ttft_s * 1e3)
    return {"tokens_per_s": statistics.median(rates), "ttft_ms": statistics.median(ttfts)}


async def short_shared(load: Load) -> Figures:
    """16 streams that share the template's system prompt."""
    asks = [load.ask([user(f"Write about the number {i} and {words(3, i)}.")], 64) for i in range(N_STREAMS)]
    answers, wall_s = await together(asks)
    return {"tokens_per_s": tokens_per_s(answers, wall_s), **times(answers)}


async def short_alone(load: Load) -> Figures:
    """16 streams that share nothing but the template's first tokens."""
    asks = [load.ask([system(words(20, 100 + i)), user(f"Write about {words(3, i)}.")], 64) for i in range(N_STREAMS)]
    answers, wall_s = await together(asks)
    return {"tokens_per_s": tokens_per_s(answers, wall_s), **times(answers)}


def cold_prefix(n_users: int) -> Callable[[Load], Awaitable[Figures]]:
    async def run(load: Load) -> Figures:
        """Users behind one cold system prompt, two questions each."""
        prompt = system(words(SHARED_WORDS, 7))

        async def one(i: int) -> list[Answer]:
            turns = [prompt, user(f"What about {words(2, i)}?")]
            first = await load.ask(turns, ANSWER_TOKENS)
            return [first, await load.ask([*turns, assistant(first.text), user("And why is that?")], ANSWER_TOKENS)]

        started = time.perf_counter()
        pairs = await asyncio.gather(*(one(i) for i in range(n_users)))
        answers = [answer for pair in pairs for answer in pair]
        return {"wall_s": time.perf_counter() - started, "cached_share": cached_share(answers), **times(answers)}

    return run


def sessions(n_sessions: int, n_turns: int) -> Callable[[Load], Awaitable[Figures]]:
    async def run(load: Load) -> Figures:
        """Conversations side by side: each asks its next question once it has its answer."""

        async def one(i: int) -> list[Answer]:
            history = [system(words(150, 500 + i))]
            answers = []
            for turn in range(n_turns):
                history.append(user(f"Question {turn}: {words(20, 31 * i + turn)}?"))
                answers.append(await load.ask(history, ANSWER_TOKENS, user=f"session-{i}"))
                history.append(assistant(answers[-1].text))
            return answers

        started = time.perf_counter()
        found = await asyncio.gather(*(one(i) for i in range(n_sessions)))
        wall_s = time.perf_counter() - started
        later = [answer for answers in found for answer in answers[1:]]
        return {
            "wall_s": wall_s,
            "later_ttft_p50_ms": statistics.median(answer.ttft_s for answer in later) * 1e3,
            "later_cached_share": cached_share(later),
        }

    return run


async def long_among_streams(load: Load) -> Figures:
    """A prompt of some 3,000 tokens arrives among 4 streams, which go on until it has its first token."""
    streams = [load.start([user(f"Tell a very long story about {words(3, i)}.")], LONG_TOKENS) for i in range(4)]
    await asyncio.sleep(3.0)
    arrived = time.perf_counter()
    newcomer = await load.ask([user(words(LONG_WORDS, 77))], 1)
    ends = arrived + newcomer.ttft_s
    await asyncio.sleep(1.0)  # the gap that they are in is to end
    gaps, rates = [], []
    for stream in streams:
        token_times = await stream.hang_up()
        rates.append(sum(arrived <= at <= ends for at in token_times) / newcomer.ttft_s)
        gaps += [after - before for before, after in itertools.pairwise(token_times) if after >= arrived]
    return {
        "worst_gap_ms": max(gaps) * 1e3,
        "newcomer_ttft_s": newcomer.ttft_s,
        "slowest_stream_tokens_per_s": min(rates),
        "prompt_tokens": float(newcomer.prompt_tokens),
    }


async def short_during_prefill(load: Load) -> Figures:
    """A prompt of some 40 tokens arrives during the prefill of a long one."""
    long = asyncio.create_task(load.ask([user(words(LONG_WORDS, 78))], 8))
    await asyncio.sleep(2.0)
    short = await load.ask([user("Say hello.")], 8)
    return {
        "short_ttft_ms": short.ttft_s * 1e3,
        "short_prompt_tokens": float(short.prompt_tokens),
        "long_ttft_s": (await long).ttft_s,
    }


async def full_cache(load: Load) -> Figures:
    """8 streams with nothing cached but themselves; then again once every stream is parked and host RAM is full."""
    empty = await _decode_rate(load, 0)
    prompt = system(words(SHARED_WORDS, 7))
    branches = [await load.ask([prompt, user(words(40, 900 + i))], 1) for i in range(N_FILLING)]
    full = await _decode_rate(load, 1)
    return {
        "empty_tokens_per_s": empty,
        "full_tokens_per_s": full,
        "full_over_empty_share": full / empty,
        "branches": float(len(branches)),
    }


async def _decode_rate(load: Load, seed: int) -> float:
    """Tokens/s of 8 streams, from the moment when all have their first token until one has its last."""
    asks = [
        load.ask([system(words(20, 40 + seed)), user(f"Write about {words(3, 10 * seed + i)}.")], 96) for i in range(8)
    ]
    answers, _ = await together(asks)
    times_s = [[answer.started_s + at for at in answer.token_times_s] for answer in answers]
    begin, end = max(each[0] for each in times_s), min(each[-1] for each in times_s)
    return sum(begin <= at <= end for each in times_s for at in each) / (end - begin)


async def team_arrival(load: Load) -> Figures:
    """A team asks while another one holds every stream with answers of 1,000 tokens, and has as many waiting."""
    first = [load.start([user(f"Write a book about {words(3, i)}.")], 1000) for i in range(2 * N_STREAMS)]
    await asyncio.sleep(5.0)
    newcomer = await load.ask([user("Say hello to the world.")], 8, as_other=True)
    for running in first:
        await running.hang_up()
    return {"newcomer_ttft_s": newcomer.ttft_s, "streams": float(sum(bool(each.answer.text) for each in first))}


WORKLOADS: dict[str, Workload] = {
    "one-stream": Workload(one_stream),
    "short-shared": Workload(short_shared),
    "short-alone": Workload(short_alone),
    "cold-prefix-8": Workload(cold_prefix(8), n_users=8),
    "cold-prefix-16": Workload(cold_prefix(16), n_users=16),
    "sessions-24x4": Workload(sessions(24, 4)),
    "sessions-64x3": Workload(sessions(64, 3)),
    "long-among-streams": Workload(long_among_streams),
    "short-during-prefill": Workload(short_during_prefill),
    "full-cache": Workload(full_cache, only_inferd=True, host_cache_mib=512),
    "beside-batch": Workload(beside_batch, only_inferd=True),
    "priority": Workload(priority, only_inferd=True),
    "billed-time": Workload(billed_time, only_inferd=True),
    "speculate-copy": Workload(speculate_copy, only_inferd=True, two_engines=True),
    "speculate-free": Workload(speculate_free, only_inferd=True, two_engines=True),
    "team-arrival": Workload(team_arrival, only_inferd=True, two_teams=True),
    "held-connections": Workload(held_connections, only_inferd=True, two_teams=True, host_cache_mib=64),
}
