"""Asks one server, as many users as it takes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass

from scripts.benchmarks.client import Answer, stream_chat
from scripts.benchmarks.servers import Server

Figures = dict[str, float]
Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Running:
    """An answer that is still coming."""

    answer: Answer
    task: asyncio.Task[None]

    async def hang_up(self) -> list[float]:
        """When its tokens came, on the clock of `time.perf_counter`."""
        assert not self.task.done(), "it was to outlast what is measured"
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        return [self.answer.started_s + at for at in self.answer.token_times_s]


class Load:
    """All requests are greedy and, with `end_tokens` forbidden, of fixed length."""

    def __init__(self, server: Server, end_tokens: list[int]) -> None:
        self.server = server
        self._bias = {str(token_id): -100 for token_id in end_tokens}

    async def ask(
        self, messages: list[Message], max_tokens: int, *, as_other: bool = False, **fields: object
    ) -> Answer:
        """`as_other`: for another team, where the server knows teams."""
        answer = Answer()
        await self._stream(answer, messages, max_tokens, as_other, fields)
        return answer

    def start(self, messages: list[Message], max_tokens: int, *, as_other: bool = False, **fields: object) -> Running:
        answer = Answer()
        return Running(answer, asyncio.create_task(self._stream(answer, messages, max_tokens, as_other, fields)))

    def body(self, messages: list[Message], max_tokens: int) -> dict[str, object]:
        """What is asked, but for the streaming."""
        asked = {"model": self.server.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
        return asked | {"logit_bias": self._bias}

    async def _stream(
        self, answer: Answer, messages: list[Message], max_tokens: int, as_other: bool, fields: dict[str, object]
    ) -> None:
        key = self.server.other_key if as_other else self.server.key
        assert key is not None, "the server has another team"
        await stream_chat(self.server.base_url, key, self.body(messages, max_tokens) | fields, answer)


async def together(asks: list[Awaitable[Answer]]) -> tuple[list[Answer], float]:
    """All answers, and the seconds that they took."""
    started = time.perf_counter()
    answers = await asyncio.gather(*asks)
    return list(answers), time.perf_counter() - started


def tokens_per_s(answers: list[Answer], wall_s: float) -> float:
    return sum(answer.completion_tokens for answer in answers) / wall_s


def times(answers: list[Answer]) -> Figures:
    """Percentiles of the time to the first token, and of the time between tokens."""
    ttfts = sorted(answer.ttft_s for answer in answers)
    gaps = sorted(gap for answer in answers for gap in answer.gaps_s)
    return {
        "ttft_p50_ms": statistics.median(ttfts) * 1e3,
        "ttft_p95_ms": ttfts[len(ttfts) * 95 // 100] * 1e3,
        "gap_p50_ms": statistics.median(gaps) * 1e3,
        "gap_p99_ms": gaps[len(gaps) * 99 // 100] * 1e3,
        "worst_gap_ms": gaps[-1] * 1e3,
    }


def cached_share(answers: list[Answer]) -> float:
    return sum(answer.cached_tokens for answer in answers) / max(1, sum(answer.prompt_tokens for answer in answers))
