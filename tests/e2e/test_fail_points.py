"""SIGKILL before and after commits of holds and settlements, and at any other moment; each start cleans up after the
one before. The server is the real command on a runner without weights, so that a start takes a second."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Iterable

import pytest

from tests.e2e.after_a_crash import assert_books_are_right, assert_commit_was_whole
from tests.e2e.load import Seen, ask_until_it_dies
from tests.e2e.server_process import ServerProcess, Team

MODELS = ["local/tiny", "local/tiny", "local/tiny", "local/tiny-free"]
FAKE = (sys.executable, "-m", "tests.e2e.launch", "--fake")
N_CLIENTS = 8

Point = tuple[str, str, int]
SAMPLE: tuple[Point, ...] = (
    ("before", "OpenHold", 1),
    ("after", "OpenHold", 9),
    ("before", "SettleHold", 1),
    ("after", "SettleHold", 1),
    ("before", "SettleHold", 12),
    ("after", "SettleHold", 7),
)


def die_at_each(server: ServerProcess, points: Iterable[Point], seed: int) -> None:
    """One start for each point, which first cleans up after the one before; it goes on running after the last."""
    team = server.team(f"seed-{seed}", 10**9)
    report = server.folder / "died.json"
    all_seen = Seen()
    died: str | None = None

    def check() -> None:
        export = assert_books_are_right(server, all_seen)
        if died is not None:
            assert_commit_was_whole(report, died, export)

    for index, (moment, command, nth) in enumerate(points):
        server.start((*FAKE, "--die", moment, command, str(nth)))
        check()
        seen = asyncio.run(ask_until_it_dies(team, MODELS, n_clients=N_CLIENTS, seed=seed * 1000 + index))
        assert server.wait() == -signal.SIGKILL
        assert set(seen.refused) <= {402}
        all_seen.complete |= seen.complete
        died = moment
    server.start(FAKE)
    check()
    assert all_seen.complete, "some answers came through"
    still_works(team)


def still_works(team: Team) -> None:
    done = team.openai().chat.completions.create(
        model="local/tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=3
    )
    assert done.usage.completion_tokens == 3


def test_the_books_survive_a_kill_at_a_commit(fake_server):
    die_at_each(fake_server, SAMPLE, seed=0)
    fake_server.assert_audit_clean()
    assert fake_server.export().faults() == []


async def kill_after(server: ServerProcess, team: Team, delay_s: float, seed: int) -> Seen:
    async def kill() -> None:
        await asyncio.sleep(delay_s)
        server.signal(signal.SIGKILL)

    load = ask_until_it_dies(team, MODELS, n_clients=N_CLIENTS, seed=seed)
    seen, _ = await asyncio.gather(load, kill())
    return seen


def kill_often(server: ServerProcess, n_kills: int, seed: int) -> None:
    rng = random.Random(seed)
    team = server.team(f"killed-{seed}", 10**9)
    all_seen = Seen()
    server.start(FAKE)
    for index in range(n_kills):
        seen = asyncio.run(kill_after(server, team, rng.uniform(0.05, 0.5), seed * 1000 + index))
        assert server.wait() == -signal.SIGKILL
        server.start(FAKE)
        all_seen.complete |= seen.complete
        assert_books_are_right(server, all_seen)
    assert all_seen.complete, "some answers came through"
    still_works(team)


def test_the_books_survive_a_kill_at_any_moment(fake_server):
    kill_often(fake_server, 3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_the_books_survive_many_kills_at_commits(fake_server, seed):
    rng = random.Random(seed)
    points = [
        (rng.choice(["before", "after"]), rng.choice(["OpenHold", "SettleHold"]), rng.randrange(1, 60))
        for _ in range(10)
    ]
    die_at_each(fake_server, points, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 30))
def test_the_books_survive_many_kills_at_any_moment(fake_server, seed):
    kill_often(fake_server, 10, seed)
