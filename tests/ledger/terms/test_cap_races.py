"""Tests of caps under threads and a second process: exactly K of N requests are admitted before the first ends."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from inferd.errors import InsufficientCreditError
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.storage.writer import LedgerWriter
from inferd.plans import SHIPPED
from inferd.price import PPM, Price
from inferd.usage import Usage
from tests.ledger.requests.test_races import in_threads

# Unified: a prompt token costs what a completion token does.
UNIFIED = Price(2_000, 2_000)
N, K, PROMPT, MAX_TOKENS = 16, 7, 10, 20
CAPS = ["credit", "team", "project", "key", "user", "plan", "tier"]
SHAPES = [(1, None, 30), (2, None, 50), (1, UNIFIED, 60), (2, UNIFIED, 100)]
# Service tier, price, what a hold of PROMPT and MAX_TOKENS comes to, or of 15 ms.
TIERS = [
    ("batch", UNIFIED.times(PPM // 2), 30),
    ("flex", Price(1_000, 1_000).times(PPM // 2), 15),
    ("priority", UNIFIED.times(PPM * 3 // 2), 90),
    ("default", Price.by_time(4_000), 60),
    ("batch", Price.by_time(4_000).times(PPM // 2), 30),
]

# Another process, which takes holds of the same team until it is refused: it says how many it had.
TAKES = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from inferd.errors import InsufficientCreditError
from inferd.attribution import Attribution
from inferd.ledger.requests.holds import OpenHold
from inferd.ledger.storage.store import Store
from inferd.price import Price
store = Store(pathlib.Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
taken = 0
for number in range(int(sys.argv[5])):
    hold = OpenHold(
        f"other-{number}", Attribution("acme", "inference", "ada", sys.argv[3], "local/tiny", "default"),
        Price(1000, 1000, 1000), 10, 20, 1, int(sys.argv[4]),
    )
    try:
        with store.immediate() as conn:
            hold.apply(conn)
        taken += 1
    except InsufficientCreditError:
        pass
print(taken, flush=True)
"""


@pytest.fixture
def writer(store):
    writer = LedgerWriter(store)
    writer.start()
    yield writer
    writer.stop()


def limit(books, cap, each):
    """Room for K requests of `each` nano-USD, and almost one more, by one cap alone."""
    room = K * each + each - 1
    who = {"by": operations.Author("test", books.now_ms)}
    operations.create_member(books.conn, "user", "acme", "ada", **who)
    books.grant(room if cap == "credit" else 100 * room)
    own = {"project": {"project": "inference"}, "key": {"key_id": books.key.id}, "user": {"user": "ada"}, "team": {}}
    if cap in own:
        operations.set_budget(books.conn, "acme", room, owner=operations.BudgetOwner(**own[cap]), **who)
    if cap == "tier":
        tiers = tuple(replace(tier, monthly_nanousd=room) for tier in SHIPPED.tiers)
        operations.apply_plans(books.conn, replace(SHIPPED, tiers=tiers), **who)
    if cap == "plan":
        academic = replace(SHIPPED.plans["academic"], cap_nanousd=room)
        catalog = replace(SHIPPED, plans={**SHIPPED.plans, "academic": academic})
        operations.apply_plans(books.conn, catalog, **who)


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize(("n", "price", "each"), SHAPES)
def test_cap_for_k_of_n_threads_admits_exactly_k(served, writer, cap, n, price, each):
    """R4, R7: with n choices, and with a unified price."""
    limit(served, cap, each)
    changes = {"user": "ada"} if price is None else {"user": "ada", "price": price}
    commands = [served.open_hold(PROMPT, n * MAX_TOKENS, **changes) for _ in range(N)]
    outcomes = in_threads(N, lambda number: writer.submit(commands[number]).result(30))
    refusals = [outcome for outcome in outcomes if isinstance(outcome, InsufficientCreditError)]
    assert len(refusals) == N - K
    assert {refusal.code for refusal in refusals} == {"in_flight_budget_exhausted"}
    assert served.credit().held_nanousd == K * each
    assert audit(served.conn).clean


NUM_USERS, PER_USER, FITS = 40, 10, 3


@pytest.mark.parametrize("unit", ["tokens", "compute_ms", "usd"])
def test_default_for_3_of_10_requests_admits_exactly_3_of_each_of_40_users(served, writer, unit):
    """R7: of all users at once, before the first request ends, and again once they have ended."""
    who = {"by": operations.Author("test", served.now_ms)}
    users = [f"user-{number}" for number in range(NUM_USERS)]
    for user in users:
        operations.create_member(served.conn, "user", "acme", user, **who)
    served.grant(10**6)
    each = 15 if unit == "compute_ms" else 30
    room, owner = FITS * each + each - 1, operations.BudgetOwner(each="user", unit=unit)
    operations.set_budget(served.conn, "acme", room, "day", owner, **who)
    price = {} if unit == "usd" else {"price": None}
    commands = [
        served.open_hold(PROMPT, MAX_TOKENS, user=user, max_compute_ms=15, **price)
        for _ in range(PER_USER)
        for user in users
    ]

    def submit(part):
        """One thread's part: of all users some."""
        return [outcome_of(writer.submit(command)) for command in commands[part::N]]

    outcomes = [outcome for part in in_threads(N, submit) for outcome in part]
    assert {code for code, _ in outcomes} == {None, "in_flight_budget_exhausted"}
    admitted = [request_id for code, request_id in outcomes if code is None]
    assert held_by_user(served) == dict.fromkeys(users, FITS)
    for request_id in admitted[::2]:
        writer.submit(served.settlement(request_id, PROMPT, MAX_TOKENS, usage=Usage(PROMPT, 0, MAX_TOKENS, 15))).result(
            30
        )
    for request_id in admitted[1::2]:
        writer.submit(served.void(request_id)).result(30)
    settled = dict(served.conn.execute("SELECT user, count(*) FROM holds WHERE state = 'settled' GROUP BY user"))
    again = [served.open_hold(PROMPT, MAX_TOKENS, user=user, max_compute_ms=15, **price) for user in users * PER_USER]
    for code, _ in in_threads(
        NUM_USERS, lambda number: [outcome_of(writer.submit(each)) for each in again[number::NUM_USERS]]
    )[0]:
        assert code in (None, "in_flight_budget_exhausted", f"user_{CODES[unit]}_limit_exceeded")
    assert held_by_user(served) == {user: FITS - settled.get(user, 0) for user in users if settled.get(user, 0) < FITS}
    assert audit(served.conn).clean


CODES = {"usd": "spend", "tokens": "token", "compute_ms": "compute"}


def outcome_of(future):
    """(code of the refusal or None, request id)."""
    try:
        return None, future.result(30).request_id
    except InsufficientCreditError as error:
        return error.code, None


def held_by_user(books):
    return dict(books.conn.execute("SELECT user, count(*) FROM holds WHERE state = 'held' GROUP BY user").fetchall())


@pytest.mark.parametrize("cap", ["credit", "team", "user"])
@pytest.mark.parametrize(("tier", "price", "each"), TIERS)
def test_cap_admits_exactly_k_of_every_service_tier_and_price_by_time(served, writer, cap, tier, price, each):
    """R4, R7, R12, R17, R23"""
    limit(served, cap, each)
    changes = {"user": "ada", "price": price, "service_tier": tier, "max_compute_ms": 15 if price.is_by_time else None}
    commands = [served.open_hold(PROMPT, MAX_TOKENS, **changes) for _ in range(N)]
    outcomes = in_threads(N, lambda number: writer.submit(commands[number]).result(30))
    assert sum(isinstance(outcome, InsufficientCreditError) for outcome in outcomes) == N - K
    assert served.credit().held_nanousd == K * each
    assert audit(served.conn).clean


@pytest.mark.parametrize("cap", ["credit", "team", "project", "key", "user"])
def test_cap_shared_by_two_processes_admits_exactly_k(served, writer, store, cap):
    """R4, R7, R20"""
    limit(served, cap, 30)
    folder = sys.modules["inferd"].__path__[0].rpartition("/")[0]
    command = [sys.executable, "-c", TAKES, folder, str(store.data_dir), served.key.id, str(served.now_ms), str(N)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        commands = [served.open_hold(PROMPT, MAX_TOKENS, user="ada") for _ in range(N)]
        process.stdin.write("go\n")
        process.stdin.flush()
        outcomes = in_threads(N, lambda number: writer.submit(commands[number]).result(30))
        theirs = int(process.stdout.readline())
    ours = sum(not isinstance(outcome, InsufficientCreditError) for outcome in outcomes)
    assert ours + theirs == K
    assert served.credit().held_nanousd == K * 30
    assert audit(served.conn).clean


def test_cap_alone_bounds_a_postpaid_team_under_concurrency(served, writer, monkeypatch):
    """R6, R7"""
    operations.set_team(
        served.conn, "acme", operations.TeamChange(overage="postpaid"), by=operations.Author("test", served.now_ms)
    )
    operations.set_budget(served.conn, "acme", K * 30 + 29, by=operations.Author("test", served.now_ms))
    commands = [served.open_hold(PROMPT, MAX_TOKENS) for _ in range(N)]
    outcomes = in_threads(N, lambda number: writer.submit(commands[number]).result(30))
    assert sum(isinstance(outcome, InsufficientCreditError) for outcome in outcomes) == N - K
    for outcome in outcomes:
        if not isinstance(outcome, InsufficientCreditError):
            writer.submit(served.settlement(outcome.request_id, PROMPT, MAX_TOKENS)).result(30)
    assert served.credit().owed_nanousd == K * 30
    assert audit(served.conn).clean
