"""What is asked of a server, and what is taken down. All requests are greedy and of fixed length where it matters."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Awaitable, Callable

from scripts.benchmarks.client import Answer, stream_chat
from scripts.benchmarks.servers import Server

Figures = dict[str, float]
_WORDS = [
    "river",
    "stone",
    "cloud",
    "garden",
    "window",
    "paper",
    "silver",
    "morning",
    "bridge",
    "lantern",
    "forest",
    "copper",
    "thunder",
    "violin",
    "harbor",
    "meadow",
    "engine",
    "pepper",
    "marble",
    "shadow",
    "rocket",
    "cotton",
    "island",
    "saddle",
    "winter",
    "candle",
    "pocket",
    "orchard",
    "velvet",
    "compass",
]


def words(n: int, seed: int) -> str:
    """About 1.4 tokens a word."""
    chosen = random.Random(seed).choices(_WORDS, k=n)
    return " ".join(f"{word} {index}" if index % 7 == 0 else word for index, word in enumerate(chosen))


class Load:
    """Asks one server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def ask(self, messages: list[dict[str, str]], max_tokens: int, **fields: object) -> Answer:
        body = {"model": self._server.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
        return await stream_chat(self._server.base_url, self._server.key, body | fields)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


async def _all(asks: list[Awaitable[Answer]]) -> tuple[list[Answer], float]:
    started = time.perf_counter()
    answers = await asyncio.gather(*asks)
    return list(answers), time.perf_counter() - started


def _rate(answers: list[Answer], wall_s: float) -> float:
    return sum(answer.completion_tokens for answer in answers) / wall_s


async def one_stream(load: Load) -> Figures:
    answers, wall_s = await _all([load.ask([user("Tell me a long story about a bridge.")], 96)])
    return {"tokens_per_s": _rate(answers, wall_s), "ttft_ms": answers[0].ttft_s * 1e3}


async def short_shared(load: Load) -> Figures:
    """16 streams that share the template's system prompt."""
    asks = [load.ask([user(f"Write about the number {i} and {words(3, i)}.")], 64) for i in range(16)]
    answers, wall_s = await _all(asks)
    return {"tokens_per_s": _rate(answers, wall_s)}


async def short_alone(load: Load) -> Figures:
    """16 streams that share nothing but the first control token."""
    asks = [load.ask([system(words(20, 100 + i)), user(f"Write about {words(3, i)}.")], 64) for i in range(16)]
    answers, wall_s = await _all(asks)
    return {"tokens_per_s": _rate(answers, wall_s)}


def cold_prefix(n_users: int) -> Callable[[Load], Awaitable[Figures]]:
    async def run(load: Load) -> Figures:
        """Users with one cold system prompt of about 1,200 tokens, two questions each."""
        prompt = system(words(800, 7))

        async def one(i: int) -> list[Answer]:
            first = await load.ask([prompt, user(f"What about {words(2, i)}?")], 24)
            turns = [prompt, user(f"What about {words(2, i)}?"), {"role": "assistant", "content": first.text}]
            return [first, await load.ask([*turns, user("And why is that?")], 24)]

        started = time.perf_counter()
        pairs = await asyncio.gather(*(one(i) for i in range(n_users)))
        return {"wall_s": time.perf_counter() - started, **_cached([answer for pair in pairs for answer in pair])}

    return run


def sessions(n_sessions: int, n_turns: int) -> Callable[[Load], Awaitable[Figures]]:
    async def run(load: Load) -> Figures:
        """Conversations turn by turn: every session asks its next question once all have their answer."""
        histories = [[system(words(150, 500 + i))] for i in range(n_sessions)]
        later: list[Answer] = []
        started = time.perf_counter()
        for turn in range(n_turns):
            for i, history in enumerate(histories):
                history.append(user(f"Question {turn}: {words(20, 31 * i + turn)}?"))
            answers = await asyncio.gather(
                *(load.ask(history, 24, user=f"session-{i}") for i, history in enumerate(histories))
            )
            for history, answer in zip(histories, answers, strict=True):
                history.append({"role": "assistant", "content": answer.text})
            later += answers if turn else []
        wall_s = time.perf_counter() - started
        ttfts = [answer.ttft_s for answer in later]
        return {"wall_s": wall_s, "later_ttft_p50_ms": statistics.median(ttfts) * 1e3, **_cached(later)}

    return run


async def long_among_streams(load: Load) -> Figures:
    """A prompt of some 3,000 tokens arrives among 4 streams."""
    streams = [
        asyncio.create_task(load.ask([user(f"Tell a very long story about {words(3, i)}.")], 400)) for i in range(4)
    ]
    await asyncio.sleep(3.0)
    arrived = time.perf_counter()
    newcomer = await load.ask([user(words(1900, 77))], 8)
    done = time.perf_counter()
    answers = await asyncio.gather(*streams)
    gaps, meanwhile = [], []
    for answer in answers:
        times = [answer.started_s + at for at in answer.token_times_s]
        during = [at for at in times if arrived <= at <= arrived + newcomer.ttft_s]
        gaps += [b - a for a, b in itertools.pairwise(times) if arrived <= b <= done]
        meanwhile.append(len(during) / newcomer.ttft_s)
    return {
        "worst_gap_ms": max(gaps) * 1e3,
        "newcomer_ttft_s": newcomer.ttft_s,
        "slowest_stream_tokens_per_s": min(meanwhile),
        "prompt_tokens": float(newcomer.prompt_tokens),
    }


async def short_during_prefill(load: Load) -> Figures:
    """A short prompt arrives during the prefill of a long one."""
    long = asyncio.create_task(load.ask([user(words(1900, 78))], 8))
    await asyncio.sleep(2.0)
    short = await load.ask([user("Say hello.")], 8)
    return {"short_ttft_ms": short.ttft_s * 1e3, "long_ttft_s": (await long).ttft_s}


def _cached(answers: list[Answer]) -> Figures:
    return {"cached_share": sum(a.cached_tokens for a in answers) / max(1, sum(a.prompt_tokens for a in answers))}


WORKLOADS: dict[str, Callable[[Load], Awaitable[Figures]]] = {
    "one-stream": one_stream,
    "short-shared": short_shared,
    "short-alone": short_alone,
    "cold-prefix-8": cold_prefix(8),
    "cold-prefix-16": cold_prefix(16),
    "sessions-24x4": sessions(24, 4),
    "sessions-64x3": sessions(64, 3),
    "long-among-streams": long_among_streams,
    "short-during-prefill": short_during_prefill,
}
