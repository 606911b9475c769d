"""`scripts/bench limits`: what the checks of a request cost, and whether a team that floods slows another one down."""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from inferd.errors import RateLimitError
from inferd.instants import steady_clock_ms, wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.identity.authenticator import Authenticator, Caller
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.limits.rate_limits import RateLimits
from inferd.serving.ticket_issuer import TicketIssuer
from inferd.usage import Usage
from scripts.benchmarks.client import Answer, stream_chat
from scripts.benchmarks.kernel import demo_model
from scripts.benchmarks.prompts import user, words
from scripts.benchmarks.servers import any_inferd, new_team

MODEL = "bench/m"
USAGE = Usage(prompt_tokens=1_000, cached_tokens=800, completion_tokens=100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench limits", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["checks", "flood"], help="default: both")
    parser.add_argument("--teams", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=200_000, help="measured ones")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each kind of flood")
    parser.add_argument("--model", type=Path, help="GGUF; default: the demo model")
    arguments = parser.parse_args()
    if arguments.what != "flood":
        checks(arguments.teams, arguments.requests)
    if arguments.what != "checks":
        flood(arguments.model or demo_model(), arguments.seconds)


def checks(n_teams: int, n_requests: int) -> None:
    """Each request passes all of them: its team's limits from the ledger, RPM, free RPM, concurrency, token rates,
    reconciled at the end. Teams take turns."""
    with tempfile.TemporaryDirectory() as folder:
        lock = DataLock(Path(folder))
        lock.acquire()
        store = Store(Path(folder), lock)
        callers = list(_callers(store, n_teams))
        authenticator = Authenticator(store)
        clock = _Clock()
        limits = RateLimits(clock)
        ticket_issuer = TicketIssuer(limits, authenticator, wall_clock_ms)
        tracemalloc.start()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for caller in callers:
            _request(ticket_issuer, caller)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        print(f"{n_teams} teams with one request each: {held / 2**20:.1f} MiB, {len(limits)} windows")
        with_ledger, in_memory, refused = [], [], []
        for index in range(n_requests):
            caller = callers[index % n_teams]
            clock.now_ms += 1
            started = time.perf_counter_ns()
            ticket = ticket_issuer.issue(caller)
            looked_up = time.perf_counter_ns()
            ticket.take_request()
            ticket.enter(MODEL, is_free=True)
            ticket.reserve(USAGE.prompt_tokens, 400)
            ticket.settle(USAGE)
            ended = time.perf_counter_ns()
            with_ledger.append(ended - started)
            in_memory.append(ended - looked_up)
        for _ in range(20_000):
            ticket = ticket_issuer.issue(callers[0])
            started = time.perf_counter_ns()
            try:
                ticket.take_request()
            except RateLimitError as error:
                ticket.refuse(error)
                refused.append(time.perf_counter_ns() - started)
        print("all checks of a request, us           " + _figures(in_memory))
        print("the same, with the look-up of limits  " + _figures(with_ledger))
        print("a refusal by RPM, us                  " + _figures(refused))
        clock.now_ms += 24 * 3_600_000
        for _ in range(2 * n_teams):
            clock.now_ms += 10_000
            _request(ticket_issuer, callers[0])
        print(f"after all but one were idle: {len(limits)} windows")
        authenticator.close()
        lock.release()


class _Clock:
    """Real time would refuse most: every team is far below its limits here, as in the common case."""

    def __init__(self) -> None:
        self.now_ms = steady_clock_ms()

    def __call__(self) -> int:
        return self.now_ms


def _callers(store: Store, n_teams: int) -> Iterator[Caller]:
    """Teams of tier 1 with a user each."""
    now_ms = wall_clock_ms()
    with store.immediate() as conn:
        for number in range(n_teams):
            team = f"team-{number}"
            operations.create_team(conn, team, "academic", by=operations.Author("bench", now_ms))
            operations.create_member(conn, "user", team, "ada", by=operations.Author("bench", now_ms))
            yield Caller(team, "inference", "ada", "key", "academic")


def _request(ticket_issuer: TicketIssuer, caller: Caller) -> None:
    ticket = ticket_issuer.issue(caller)
    ticket.take_request()
    ticket.enter(MODEL, is_free=True)
    ticket.reserve(USAGE.prompt_tokens, 400)
    ticket.settle(USAGE)


def _figures(samples_ns: list[int]) -> str:
    ordered = sorted(samples_ns)
    p50, p99 = (ordered[int(len(ordered) * share)] / 1e3 for share in (0.50, 0.99))
    return f"mean {statistics.fmean(samples_ns) / 1e3:6.1f}   p50 {p50:6.1f}   p99 {p99:6.1f}"


RPM = 100
MAX_TOKENS = 16
_MODELS_TOML = f"""
[models.m]
source = "{{model}}"
max_context = 2048
n_parallel = 8

[deployments."{MODEL}"]
model = "m"
serverless = true
usd_per_1m_tokens = 0.1
"""


def flood(model: Path, seconds: float) -> None:
    """One team asks at 1 and at 20 times its limit (tier 1, 100 RPM); another, without limits, one request a second,
    whose time to the first token is measured. A server of its own each, so that all windows begin empty."""
    p50_ms = {}
    for times in (1, 20):
        models_toml = _MODELS_TOML.format(model=model)
        with tempfile.TemporaryDirectory() as folder, any_inferd(Path(folder), models_toml) as server:
            data = Path(folder) / "data"
            victim, flooder = (new_team(data, name, tier) for name, tier in (("victim", 5), ("flooder", 1)))
            ttfts_ms, answered, refused = asyncio.run(_flood(server.base_url, victim, flooder, times, seconds))
        p50_ms[times] = statistics.median(ttfts_ms)
        print(
            f"flooder at {times:2}x its limit: {answered} answered, {refused} refused; another team's TTFT p50 "
            f"{p50_ms[times]:.1f} ms, p95 {statistics.quantiles(ttfts_ms, n=20)[-1]:.1f} ms of {len(ttfts_ms)}",
            flush=True,
        )
    print(f"ratio of the p50s: {p50_ms[20] / p50_ms[1]:.2f}")


async def _flood(base_url: str, victim: str, flooder: str, times: int, seconds: float) -> tuple[list[float], int, int]:
    outcomes: list[bool] = []
    until = time.perf_counter() + seconds

    async def one(number: int) -> None:
        try:
            await _ask(base_url, flooder, f"Say something about {words(3, number)}.")
            outcomes.append(True)
        except RuntimeError as error:
            if " 429 " not in str(error):
                raise
            outcomes.append(False)

    async def attack() -> None:
        tasks = []
        began, number = time.perf_counter(), 0
        while time.perf_counter() < until:
            tasks.append(asyncio.create_task(one(number)))
            number += 1
            await asyncio.sleep(max(0.0, began + number * 60 / (RPM * times) - time.perf_counter()))
        await asyncio.gather(*tasks)

    attacking = asyncio.create_task(attack())
    # On a schedule of its own, so that slow moments are not asked less often.
    asked = []
    while time.perf_counter() < until:
        text = f"Tell me about {words(20, 10_000 + len(asked))}."
        asked.append(asyncio.create_task(_ask(base_url, victim, text)))
        await asyncio.sleep(1.0)
    ttfts_ms = [(await task).ttft_s * 1e3 for task in asked]
    await attacking
    return ttfts_ms, sum(outcomes), len(outcomes) - sum(outcomes)


async def _ask(base_url: str, key: str, text: str) -> Answer:
    body = {"model": MODEL, "messages": [user(text)], "max_tokens": MAX_TOKENS, "temperature": 0.0}
    answer = Answer()
    await stream_chat(base_url, key, body, answer)
    return answer


if __name__ == "__main__":
    main()
