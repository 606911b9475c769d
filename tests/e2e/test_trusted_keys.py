"""A chat page with many users behind one trusted key, over a socket (BILLING R7, R9), and kills at a user's first
request. The server is the real command on a runner without weights."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from inferd.ledger import operations
from inferd.ledger.storage.store import Store
from tests.e2e.after_a_crash import assert_books_are_right, read_books
from tests.e2e.load import Seen
from tests.e2e.server_process import ServerProcess, Team

FAKE = (sys.executable, "-m", "tests.e2e.launch", "--fake")
PRICED, FREE = "local/tiny", "local/tiny-free"
NUM_USERS, PER_USER, FITS = 40, 10, 3
HEADER = "X-OpenWebUI-User-Email"


def by() -> dict[str, Any]:
    return {"by": operations.Author("test", time.time_ns() // 1_000_000)}


def family(server: ServerProcess, name: str) -> Team:
    """A team with credit and a trusted key, whose project may have all requests of a race under way."""
    server.team(name, 10**9)
    with Store(server.data_dir).immediate() as conn:
        operations.set_concurrency(conn, "project", name, "inference", NUM_USERS * PER_USER, **by())
        key = operations.create_key(conn, name, operations.KeyRequest(trusted=True), **by())
    return Team(server, name, key.id, key.key)


def address(number: int) -> str:
    return f"user-{number}@example.org"


def made_by(server: ServerProcess, team: Team) -> list[str]:
    """Return the users that the team's trusted key has made, each with its line in the audit log."""
    with Store(server.data_dir).reading() as conn:
        query = operations.LogQuery(team=team.name, actor=f"key:{team.key_id}", action="users.create", limit=1000)
        logged = sorted(entry.details["name"] for entry in operations.read_log(conn, query))
        users = [user.name for user in operations.list_members(conn, "user", team.name)]
        assert users == logged
        return users


async def ask(client: httpx.AsyncClient, model: str, user: str) -> tuple[int, str | None]:
    """Ask for an answer of a length that all have, and return its status and code."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    response = await client.post("/chat/completions", json=body, headers={HEADER: user})
    return response.status_code, None if response.status_code == 200 else response.json()["error"]["code"]


def ask_once(team: Team, model: str = PRICED) -> tuple[int, str | None]:
    async def once() -> tuple[int, str | None]:
        async with team.http() as client:
            return await ask(client, model, address(1))

    return asyncio.run(once())


async def race(team: Team, model: str) -> dict[str, Counter[tuple[int, str | None]]]:
    """Return the outcomes of each user, who all ask at once."""
    users = [address(number) for number in range(NUM_USERS)] * PER_USER
    async with team.http() as client:
        outcomes = await asyncio.gather(*(ask(client, model, user.title()) for user in users))
    found: dict[str, Counter[tuple[int, str | None]]] = {user: Counter() for user in users}
    for user, outcome in zip(users, outcomes, strict=True):
        found[user][outcome] += 1
    return found


def worst_case(server: ServerProcess, name: str, unit: str) -> int:
    """Return what one such request holds, of another team, in the unit."""
    team = family(server, name)
    with Store(server.data_dir).immediate() as conn:
        operations.set_budget(conn, name, 10**6, "day", operations.BudgetOwner(unit="tokens"), **by())

    assert ask_once(team, PRICED if unit == "usd" else FREE) == (200, None)
    (hold,) = [hold for hold in read_books(server).holds.values() if hold["team"] == name]
    return int(hold["amount_nanousd"] if unit == "usd" else hold["prompt_tokens"] + hold["max_completion_tokens"])


def test_cap_for_3_of_10_requests_admits_exactly_3_of_each_of_40_users_behind_one_key(fake_server):
    fake_server.start(FAKE)
    other = family(fake_server, "other")
    with Store(fake_server.data_dir).immediate() as conn:
        operations.create_member(conn, "user", "other", address(0), **by())
    for unit, model, code in (("usd", PRICED, "spend"), ("tokens", FREE, "token")):
        each = worst_case(fake_server, f"probe-{unit}", unit)
        team = family(fake_server, f"lab-{unit}")
        with Store(fake_server.data_dir).immediate() as conn:
            owner = operations.BudgetOwner(each="user", unit=unit)
            operations.set_budget(conn, team.name, FITS * each, "month", owner, **by())
        for user, outcomes in asyncio.run(race(team, model)).items():
            assert outcomes.pop((200, None)) == FITS, user
            assert set(outcomes) <= {(402, "in_flight_budget_exhausted"), (402, f"user_{code}_limit_exceeded")}
        books = read_books(fake_server)
        mine = [row for row in books.usage.values() if row["team"] == team.name]
        assert Counter(row["user"] for row in mine) == {address(number): FITS for number in range(NUM_USERS)}
        assert made_by(fake_server, team) == sorted(address(number) for number in range(NUM_USERS))
        by_user = fake_server.json("usage", "--team", team.name, "--by", "user")["rows"]
        assert {row["user"]: row["requests"] for row in by_user} == {
            f"{team.name}/{address(number)}": FITS for number in range(NUM_USERS)
        }
    assert [row for row in books.usage.values() if row["team"] == other.name] == []


def test_kill_at_the_commit_of_a_new_user_leaves_the_user_whole_or_not_at_all(fake_server):
    team: Team | None = None
    for moment, users in (("before", []), ("after", [address(1)])):
        fake_server.start((*FAKE, "--die", moment, "make_named_user", "1"))
        team = team or family(fake_server, "family")
        with pytest.raises(httpx.TransportError):
            ask_once(team)
        assert fake_server.wait() == -signal.SIGKILL
        assert made_by(fake_server, team) == users
    fake_server.start(FAKE)
    export = assert_books_are_right(fake_server, Seen())
    assert (export.holds, export.usage) == ({}, {})
    assert ask_once(team) == (200, None)
    assert made_by(fake_server, team) == [address(1)]
    read_books(fake_server)
