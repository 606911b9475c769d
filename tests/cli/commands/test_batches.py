"""`inferd batches`."""

from __future__ import annotations

import json

import pytest

from inferd.cli import access
from inferd.cli.commands import batches
from inferd.ledger import operations
from inferd.ledger.batches import progress as batch_progress
from inferd.ledger.batches.records import BatchTotals
from inferd.ledger.identity.authenticator import Caller
from inferd.ledger.storage.store import Store

TOTALS = BatchTotals(1200, 200, 30, 10, 4_500)


@pytest.fixture
def batch(data_dir):
    """One of team acme, to be validated."""
    who = {"by": operations.Author("test", 10**12)}
    with Store(data_dir).immediate() as conn:
        operations.create_team(conn, "acme", **who)
        key = operations.create_key(conn, "acme", **who)
        owner = Caller("acme", "inference", None, key.id, "free")
        operations.create_file(conn, owner, operations.NewFile("file-1", "in.jsonl", 9), **who)
        return operations.create_batch(conn, owner, operations.NewBatch("/v1/chat/completions", "file-1"), **who)


def finish(conn, batch, **counts):
    result = batch_progress.BatchResult("completed", **counts, totals=TOTALS)
    batch_progress.finish_batch(conn, batch.batch_id, result, now_ms=10**12)


def test_batch_is_listed_and_shown(inferd, batch):
    (listed,) = json.loads(inferd("batches", "list", "acme", "--json").out)
    assert listed == json.loads(inferd("batches", "show", batch.batch_id, "--json").out)
    assert (listed["status"], listed["request_counts"]["total"], listed["usage"]) == ("validating", 0, None)
    assert batch.batch_id in inferd("batches", "list").out
    assert "Status       validating" in inferd("batches", "show", batch.batch_id).out


def test_cancel_sets_cancelling_until_a_server_ends_the_batch(inferd, batch):
    assert "Cancelling batch" in inferd("batches", "cancel", batch.batch_id).out
    assert json.loads(inferd("batches", "cancel", batch.batch_id, "--json").out)["status"] == "cancelling"
    done = inferd("batches", "cancel", "batch_none")
    assert done.status == 1
    assert "there is no batch" in done.err


def test_cancel_asks_a_running_server_and_leaves_the_ledger_to_it(inferd, batch, monkeypatch):
    asked = []
    body = b'{"team": "acme", "status": "cancelling"}'
    monkeypatch.setattr(access, "ask_server", lambda *words: asked.append(words) or (200, body))
    assert inferd("batches", "cancel", batch.batch_id, "--json").json == json.loads(body)
    ((_, method, path),) = asked
    assert method == "POST"
    assert path == f"/admin/batches/{batch.batch_id}/cancel"
    assert inferd("batches", "show", batch.batch_id, "--json").json["status"] == "validating"


def test_cancel_without_a_server_changes_the_ledger(inferd, batch):
    assert inferd("batches", "cancel", batch.batch_id, "--json").json["status"] == "cancelling"
    assert inferd("batches", "show", batch.batch_id, "--json").json["status"] == "cancelling"


def test_cancel_that_a_running_server_refuses_shows_its_message(inferd, batch, monkeypatch):
    body = b'{"error": {"message": "too late"}}'
    monkeypatch.setattr(access, "ask_server", lambda *_: (409, body))
    refused = inferd("batches", "cancel", batch.batch_id)
    assert refused.status == 1
    assert refused.err == "inferd: too late\n"


def test_ended_batch_is_shown_at_once_and_not_cancelled(inferd, batch, data_dir):
    with Store(data_dir).immediate() as conn:
        finish(conn, batch, num_completed=0, num_failed=0)
    shown = json.loads(inferd("batches", "show", batch.batch_id, "--watch", "--json").out)
    assert shown["status"] == "completed"
    assert shown["usage"] == {
        "prompt_tokens": 1200,
        "cached_tokens": 200,
        "completion_tokens": 30,
        "reasoning_tokens": 10,
        "cost_usd": "0.000004500",
    }
    assert "1,200 in (200 cached), 30 out" in inferd("batches", "show", batch.batch_id).out
    done = inferd("batches", "cancel", batch.batch_id)
    assert done.status == 1
    assert "is completed" in done.err


def test_watch_follows_a_batch_to_its_end_with_a_bar(inferd, batch, data_dir, monkeypatch):
    """The bar goes to stderr; what is printed at the end is the batch as it is then."""
    steps = [
        lambda conn: batch_progress.begin_batch(
            conn, batch.batch_id, num_total=40, num_failed=1, tokens=9, now_ms=10**12 + 1
        ),
        lambda conn: batch_progress.RecordProgress(batch.batch_id, 16, 1).apply(conn),
        lambda conn: batch_progress.start_finalizing(conn, batch.batch_id, now_ms=10**12 + 2),
        lambda conn: finish(conn, batch, num_completed=39, num_failed=1),
    ]
    seen = []

    def sleep(seconds):
        seen.append(seconds)
        with Store(data_dir).immediate() as conn:
            steps[len(seen) - 1](conn)

    monkeypatch.setattr(batches, "sleep", sleep)
    done = inferd("batches", "show", batch.batch_id, "--watch")
    assert seen == [batches.WATCH_S] * len(steps)
    assert "40: 39 answered, 1 failed" in done.out
    assert "Status       completed" in done.out
    assert "completed" in done.err
    assert "40/40" in done.err
    assert "━" in done.err
    assert "40/40" not in done.out
