"""Threads that render and tokenise prompts, shared fairly by teams; uploads and reports have others."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from inferd.errors import ClientGoneError, OverloadedError, RateLimitError
from inferd.tokenizer import Check

_T = TypeVar("_T")
NUM_THREADS = 4
MAX_RUNNING = 2 if (os.cpu_count() or 1) >= NUM_THREADS else 1
"""Jobs of one team that run at once: threads are left to other teams, and a core to the engine. On two cores with an
engine of one thread, a flood of /tokenize made another team's chats 1.8 and 2.9 times as slow with 2 jobs, 1.0 and 1.9
times with 1 (p95 of 8 chats, in turns, load average 10)."""
MAX_WAITING = 512
"""Jobs of one team that wait: eight calls of 64 prompts."""
_RETRY_AFTER_S = 1.0
_STOPPING_RETRY_AFTER_S = 5.0


class _Job(Generic[_T]):
    """Work on one prompt or text. Its thread reads `is_stopped`."""

    def __init__(self, team: str, work: Callable[[Check], _T]) -> None:
        self.team = team
        self.work = work
        self.done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self.is_stopped = False

    def run(self) -> _T:
        self.check()
        return self.work(self.check)

    def check(self) -> None:
        """Raises OverloadedError once the result is no longer wanted."""
        if self.is_stopped:
            raise _stopping()


class TokenizerPool:
    """Belongs to the event loop. Teams that wait take turns.

    Args:
        max_running, max_waiting: jobs of one team.
    """

    def __init__(
        self, num_threads: int = NUM_THREADS, *, max_running: int = MAX_RUNNING, max_waiting: int = MAX_WAITING
    ) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="inferd-tokenizer")
        self._num_idle = num_threads
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._waiting: dict[str, deque[_Job[object]]] = {}
        self._running: dict[_Job[object], None] = {}
        self._num_running: Counter[str] = Counter()
        self._is_closed = False

    @property
    def num_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def num_running(self) -> int:
        return len(self._running)

    async def run(self, team: str, work: Callable[[Check], _T]) -> _T:
        """Return `work(check)`, done on a thread; `work` calls `check` before each step that takes time.

        A caller that is cancelled takes its job with it: out of the queue, or at its next `check`.

        Raises:
            OverloadedError: the server is stopping.
            RateLimitError: too many jobs of the team wait.
        """
        if self._is_closed:
            raise _stopping()
        queue = self._waiting.setdefault(team, deque())
        if len(queue) >= self._max_waiting:
            raise RateLimitError(
                f"Team `{team}` has {len(queue)} prompts waiting to be tokenised, the most it may have; please try "
                "again in a second.",
                code="too_many_prompts",
                retry_after_s=_RETRY_AFTER_S,
            )
        job = _Job(team, work)
        queue.append(job)  # type: ignore[arg-type]  # a job is read only as far as its result
        self._start()
        try:
            return await job.done
        finally:
            job.is_stopped = True
            if job in queue:
                queue.remove(job)  # type: ignore[arg-type]
            if not queue and self._waiting.get(team) is queue:
                del self._waiting[team]

    async def run_until(
        self, team: str, work: Callable[[Check], _T], cancelled: asyncio.Event, refusal: asyncio.Future[None]
    ) -> _T:
        """Return what `run` does, unless the request ends before: raises ClientGoneError once `cancelled` is set, and
        the error of `refusal` once that fails."""
        running, gone = asyncio.create_task(self.run(team, work)), asyncio.create_task(cancelled.wait())
        ends: list[asyncio.Future[Any]] = [running, gone, refusal]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ClientGoneError("The client closed the connection before the request was admitted.")
            if refusal.done():
                refusal.result()
            return await running
        finally:
            gone.cancel()
            running.cancel()

    async def close(self) -> None:
        """Refuse waiting jobs, stop running ones at their next `check`, and join the threads."""
        self._is_closed = True
        for queue in self._waiting.values():
            for job in queue:
                if not job.done.done():
                    job.done.set_exception(_stopping())
            queue.clear()
        for job in self._running:
            job.is_stopped = True
        await asyncio.to_thread(self._threads.shutdown)

    def _start(self) -> None:
        """Give idle threads to the teams in turn."""
        while self._num_idle:
            team = next((name for name in self._waiting if self._may_start(name)), None)
            if team is None:
                return
            queue = self._waiting.pop(team)
            job = queue.popleft()
            self._waiting[team] = queue  # behind all others
            self._num_idle -= 1
            self._num_running[team] += 1
            self._running[job] = None
            self._threads.submit(job.run).add_done_callback(partial(self._report, asyncio.get_running_loop(), job))

    def _may_start(self, team: str) -> bool:
        return bool(self._waiting[team]) and self._num_running[team] < self._max_running

    def _report(self, loop: asyncio.AbstractEventLoop, job: _Job[object], ended: Future[object]) -> None:
        """Hand the end of a job from its thread to the loop."""
        with suppress(RuntimeError):  # the loop has ended, and its tasks with it
            loop.call_soon_threadsafe(self._end, job, ended)

    def _end(self, job: _Job[object], ended: Future[object]) -> None:
        self._num_idle += 1
        del self._running[job]
        self._num_running[job.team] -= 1
        if not self._num_running[job.team]:
            del self._num_running[job.team]
        if not job.done.done():
            error = ended.exception()
            if error is None:
                job.done.set_result(ended.result())
            else:
                job.done.set_exception(error)
        if not self._is_closed:
            self._start()


def _stopping() -> OverloadedError:
    return OverloadedError("The server is shutting down.", retry_after_s=_STOPPING_RETRY_AFTER_S)
