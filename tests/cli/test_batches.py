"""`inferd batches`."""

from __future__ import annotations

import json

import pytest

from inferd.ledger import batch_operations, batch_progress, operations
from inferd.ledger.store import Store


@pytest.fixture
def batch(data_dir):
    """One of team acme, to be validated."""
    who = {"actor": "test", "now_ms": 10**12}
    with Store(data_dir).immediate() as conn:
        operations.create_team(conn, "acme", **who)
        key = operations.create_key(conn, "acme", **who)
        owner = {"user": None, "key_id": key.id}
        batch_operations.create_file(
            conn, "acme", "inference", "file-1", filename="in.jsonl", num_bytes=9, **owner, **who
        )
        return batch_operations.create_batch(
            conn, "acme", "inference", endpoint="/v1/chat/completions", input_file_id="file-1", **owner, **who
        )


def test_batches_are_listed_and_shown(inferd, batch):
    (listed,) = json.loads(inferd("batches", "list", "acme", "--json").out)
    assert listed == json.loads(inferd("batches", "show", batch.batch_id, "--json").out)
    assert (listed["status"], listed["request_counts"]["total"]) == ("validating", 0)
    assert batch.batch_id in inferd("batches", "list").out
    assert "Status       validating" in inferd("batches", "show", batch.batch_id).out


def test_a_cancelled_batch_is_being_cancelled_until_a_server_ends_it(inferd, batch):
    assert "is being cancelled" in inferd("batches", "cancel", batch.batch_id).out
    assert json.loads(inferd("batches", "cancel", batch.batch_id, "--json").out)["status"] == "cancelling"
    done = inferd("batches", "cancel", "batch_none")
    assert (done.status, "there is no batch" in done.err) == (1, True)


def test_one_that_has_ended_is_shown_at_once_and_not_cancelled(inferd, batch, data_dir):
    with Store(data_dir).immediate() as conn:
        batch_progress.finish_batch(
            conn, batch.batch_id, "completed", num_completed=0, num_failed=0, output=None, errors=None, now_ms=10**12
        )
    assert json.loads(inferd("batches", "show", batch.batch_id, "--watch", "--json").out)["status"] == "completed"
    done = inferd("batches", "cancel", batch.batch_id)
    assert (done.status, "is completed" in done.err) == (1, True)
