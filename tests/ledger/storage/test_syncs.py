"""A settlement is on disk before it is answered: a preload shim counts syncs below SQLite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ledger.storage.sync_child import TIMES

ROOT = Path(__file__).resolve().parents[3]
SHIM = ROOT / "scripts" / "benchmarks" / "sync_shim.c"


@pytest.fixture(scope="module")
def syncs(tmp_path_factory):
    """What was done -> how many syncs it took."""
    folder = tmp_path_factory.mktemp("syncs")
    subprocess.run(["cc", "-Wall", "-shared", "-fPIC", "-o", folder / "shim.so", SHIM, "-ldl"], check=True)
    log = folder / "log"
    log.touch()
    environment = {"LD_PRELOAD": str(folder / "shim.so"), "SYNC_SHIM_LOG": str(log), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("sync_child.py"), folder / "data", log],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_settlement_is_synced_before_it_is_answered(syncs):
    """R16"""
    assert syncs["settlements"] == TIMES
    assert syncs["voids"] == 2


def test_commit_of_the_command_line_is_synced(syncs):
    """Each grant here is a transaction or more of its own, in autocommit mode."""
    assert syncs["grants"] >= TIMES


def test_queued_settlements_share_a_sync(syncs):
    assert syncs["a group of settlements"] in {1, 2}, "the hold may have had a group of its own"


def test_holds_without_settlements_are_not_synced(syncs):
    assert syncs["holds"] == 0
