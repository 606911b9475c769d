"""`kill -9` at any moment: every answered command is in the ledger, no unsettled request is billed, no hold is left."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.reports.export import export_lines
from inferd.ledger.requests.settlement import begin_epoch
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from tests.e2e.refold import Export

CHILD = Path(__file__).with_name("crash_child.py")
NOW_MS = 1_795_176_000_000
LATER_MS = NOW_MS + 10**9
COST_NANOUSD = 15
KINDS = ("hold", "settle", "grant", "expiry", "refund")
NEVER = "1000000"


def start(data_dir: Path, *fail_point: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(data_dir), *fail_point]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(Path.cwd())})


def answers(output: str) -> dict[str, set[tuple[str, ...]]]:
    """Kind -> what was answered; a line that the kill cut off was no answer."""
    found: dict[str, set[tuple[str, ...]]] = {"settle": set(), "grant": set(), "refund": set()}
    for line in output.split("\n")[:-1]:
        kind, *words = line.split()
        if kind != "ready":
            found[kind].add(tuple(words))
    return found


def assert_books_survive(data_dir: Path, output: str) -> int:
    """Returns how many holds the dead server had left."""
    answered = answers(output)
    with DataLock(data_dir) as lock:
        store = Store(data_dir, lock)
        with store.reading() as conn:
            (left,) = conn.execute("SELECT count(*) FROM holds WHERE state = 'held'").fetchone()
        begin_epoch(store, LATER_MS)
        with store.reading() as conn:
            assert [str(finding) for finding in audit(conn).findings] == []
            assert Export(export_lines(conn, now_ms=LATER_MS)).faults() == []
            assert operations.show_credit(conn, "acme", now_ms=LATER_MS).held_nanousd == 0
            (remaining,) = conn.execute("SELECT sum(remaining_nanousd) FROM grants").fetchone()

            def rows(sql: str) -> set[tuple[str, ...]]:
                return {tuple(map(str, row)) for row in conn.execute(sql)}

            billed = rows("SELECT request_id FROM usage WHERE cost_nanousd > 0")
            settled = rows("SELECT request_id FROM holds WHERE state = 'settled'")
            granted = rows("SELECT grant_id, amount_nanousd FROM grants")
            refunded = rows("SELECT txn, amount_nanousd FROM refunds")
            expired = -sum(
                amount
                for (amount,) in conn.execute(
                    "SELECT amount_nanousd FROM entries JOIN transactions USING (txn) "
                    "WHERE amount_nanousd < 0 AND account LIKE 'team:%' AND kind = 'expiry'"
                )
            )
        assert billed == settled
        assert answered["settle"] <= billed
        assert answered["grant"] <= granted
        assert answered["refund"] <= refunded
        money_in = sum(int(amount) for _, amount in granted | refunded)
        assert remaining == money_in - COST_NANOUSD * len(billed) - expired
        return left


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_kill_at_a_commit_loses_no_answer_and_bills_nothing_unsettled(tmp_path, kind, moment):
    """R16, R20"""
    with start(tmp_path / "data", kind, moment, "5") as child:
        output = child.stdout.read()
    assert child.returncode == -signal.SIGKILL
    assert_books_survive(tmp_path / "data", output)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_kill_at_a_random_moment_loses_no_answer(tmp_path, seed):
    """R16, R20"""
    chance = random.Random(seed)
    fail_point = (chance.choice(KINDS), chance.choice(["before", "after"]), str(chance.randint(1, 60)))
    at_commit = seed % 2 == 0
    with start(tmp_path / "data", *(fail_point if at_commit else ("hold", "before", NEVER))) as child:
        assert child.stdout.readline() == "ready\n"
        if not at_commit:
            time.sleep(chance.uniform(0, 0.4))
            child.kill()
        output = child.stdout.read()
    assert_books_survive(tmp_path / "data", output)
