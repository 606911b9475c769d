"""`kill -9` at any moment: what was answered is in the books, what was not settled is not billed, no hold is left."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inferd.ledger import operations
from inferd.ledger.audit import audit
from inferd.ledger.lock import DataLock
from inferd.ledger.store import Store

CHILD = Path(__file__).with_name("crash_child.py")
NOW_MS = 1_795_176_000_000
COST_NANOUSD = 15
NEVER = "1000000"


def start(data_dir: Path, *fail_point: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(data_dir), *fail_point]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(Path.cwd())})


def assert_books_survive(data_dir: Path, answered: set[str]) -> int:
    """Returns how many holds the dead server had left."""
    with DataLock(data_dir) as lock:
        store = Store(data_dir, lock)
        with store.reading() as conn:
            (left,) = conn.execute("SELECT count(*) FROM holds WHERE state = 'held'").fetchone()
        store.begin_epoch(NOW_MS)
        with store.reading() as conn:
            assert [str(finding) for finding in audit(conn).findings] == []
            credit = operations.show_credit(conn, "acme", now_ms=NOW_MS)
            billed = {row[0] for row in conn.execute("SELECT request_id FROM usage WHERE cost_nanousd > 0")}
            settled = {row[0] for row in conn.execute("SELECT request_id FROM holds WHERE state = 'settled'")}
        assert credit.held_nanousd == 0
        assert credit.balance_nanousd == 10**9 - COST_NANOUSD * len(billed)
        assert billed == settled
        assert answered <= billed
        return left


@pytest.mark.parametrize("kind", ["hold", "settle"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_a_commit_loses_nothing_and_bills_nothing_unsettled(tmp_path, kind, moment):
    """R16, R20"""
    with start(tmp_path / "data", kind, moment, "5") as child:
        output = child.stdout.read().split()
    assert child.returncode == -signal.SIGKILL
    answered = set(output) - {"ready"}
    left = assert_books_survive(tmp_path / "data", answered)
    if (kind, moment) in {("hold", "after"), ("settle", "before")}:
        assert left > 0, "the kill came where a hold was open"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_kill_at_a_random_moment_loses_nothing(tmp_path, seed):
    """R16, R20"""
    chance = random.Random(seed)
    fail_point = (chance.choice(["hold", "settle"]), chance.choice(["before", "after"]), str(chance.randint(1, 200)))
    at_commit = seed % 2 == 0
    with start(tmp_path / "data", *(fail_point if at_commit else ("hold", "before", NEVER))) as child:
        assert child.stdout.readline() == "ready\n"
        if not at_commit:
            time.sleep(chance.uniform(0, 0.4))
            child.kill()
        answered = set(child.stdout.read().split("\n")[:-1])
    assert_books_survive(tmp_path / "data", answered)
