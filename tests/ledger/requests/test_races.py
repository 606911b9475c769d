"""Tests of threads and a second process that use the same ledger at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from inferd.errors import InsufficientCreditError
from inferd.ledger.audit.run import audit
from inferd.ledger.requests.settlement import HoldResolvedError
from inferd.ledger.storage.writer import LedgerWriter

GRANTS = """
import pathlib, sys
from inferd.ledger import operations
from inferd.ledger.storage.store import Store
store = Store(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
for number in range(30):
    with store.immediate() as conn:
        # Twice with one idempotency key: granted once.
        for _ in range(2):
            operations.grant_credit(
                conn,
                "acme",
                operations.NewGrant(1000),
                idempotency_key=f"grant-{number}",
                by=operations.Author("other", int(sys.argv[2])),
            )
"""


@pytest.fixture
def writer(store):
    writer = LedgerWriter(store)
    writer.start()
    yield writer
    writer.stop()


def in_threads(count, work):
    """Run `work(0..count-1)` in threads that start together; what each returned or raised."""
    start = threading.Barrier(count)
    outcomes = [None] * count

    def run(number):
        start.wait()
        try:
            outcomes[number] = work(number)
        except (InsufficientCreditError, HoldResolvedError) as exc:
            outcomes[number] = exc

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return outcomes


def test_credit_for_k_of_n_threads_admits_exactly_k(served, writer):
    """R4: all are admitted before the first ends."""
    served.grant(7 * 30 + 29)
    commands = [served.open_hold(10, 20) for _ in range(24)]
    outcomes = in_threads(24, lambda number: writer.submit(commands[number]).result(30))
    assert sum(isinstance(outcome, InsufficientCreditError) for outcome in outcomes) == 17
    assert (served.credit().held_nanousd, served.credit().available_nanousd) == (210, 29)
    assert audit(served.conn).clean


def test_concurrent_resolutions_of_a_hold_have_one_winner(served, writer):
    """R16"""
    served.grant(10_000)
    for _ in range(5):
        request_id = served.hold(10, 20)
        commands = [served.settlement(request_id, 10, 5) if i % 2 else served.void(request_id) for i in range(8)]
        outcomes = in_threads(8, lambda number, commands=commands: writer.submit(commands[number]).result(30))
        assert sum(isinstance(outcome, HoldResolvedError) for outcome in outcomes) == 7
    assert served.credit().held_nanousd == 0
    assert audit(served.conn).clean


def test_grants_by_another_process_reach_running_requests(served, writer, store):
    """R20, R22"""
    served.grant(1_000_000)

    async def requests():
        async def one():
            hold = await writer.execute(served.open_hold(10, 20))
            return (await writer.execute(served.settlement(hold.request_id, 10, 5))).cost_nanousd

        costs = []
        while process.poll() is None:
            costs += await asyncio.gather(*(one() for _ in range(8)))
        return costs

    command = [sys.executable, "-c", GRANTS, str(store.data_dir), str(served.now_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        costs = asyncio.run(requests())
    assert process.returncode == 0
    assert costs
    assert set(costs) == {15}
    assert served.credit().balance_nanousd == 1_000_000 + 30 * 1000 - sum(costs)
    assert audit(served.conn).clean
