"""A disk that fills up refuses new work while running requests can still be settled; then nothing is lost."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import pytest

from inferd.errors import OverloadedError
from inferd.ledger import operations
from inferd.ledger.storage import data_dir
from inferd.ledger.storage.client import LedgerClient
from inferd.ledger.storage.writer import LedgerWriter
from inferd.usage import Usage


@pytest.fixture
def writer(store):
    writer = LedgerWriter(store)
    writer.start()
    yield writer
    writer.stop()


def test_disk_nearly_full_refuses_holds_and_commits_settlements(served, writer, monkeypatch, caplog):
    served.grant(100)
    request_id = served.hold(5)
    monkeypatch.setattr(data_dir, "free_bytes", lambda folder: data_dir.RESERVE_BYTES - 1)
    refused = writer.submit(served.open_hold(1))
    settled = writer.submit(served.settlement(request_id, 5))
    error = refused.exception(10)
    assert isinstance(error, OverloadedError)
    assert (error.code, error.retry_after_s) == ("disk_nearly_full", 60.0)
    with pytest.raises(OverloadedError, match="nearly full"):
        writer.check_space()
    assert settled.result(10).cost_nanousd == 5
    assert "nearly full" in caplog.text
    monkeypatch.setattr(data_dir, "free_bytes", lambda folder: data_dir.RESERVE_BYTES)
    assert writer.submit(served.open_hold(1)).result(10)


def test_settlement_on_a_full_disk_keeps_its_hold_and_is_retried(served, writer, store):
    """The file is not allowed to grow, as on a full disk; once it is, the settlement commits."""
    served.grant(10**6)
    request_id = served.hold(5)
    writer.submit(served.open_hold(1)).result(10)  # the writer has begun
    writer._conn.execute(f"PRAGMA max_page_count = {served.one('PRAGMA page_count')}")
    opened = []
    while not (error := (last := writer.submit(served.open_hold(1))).exception(10)):
        opened.append(last.result().request_id)
    assert isinstance(error, OverloadedError)
    settling = [writer.submit(served.settlement(name, usage=Usage(1, 0, 0))) for name in (request_id, *opened)]
    time.sleep(0.3)
    waiting = [future for future in settling if not future.done()]
    assert waiting, "the file was full"
    assert served.credit().held_nanousd > 0
    writer._conn.execute("PRAGMA max_page_count = 1000000")
    assert {future.result(10).cost_nanousd for future in settling} == {1}
    served.assert_clean()


def test_admin_change_on_a_full_disk_is_refused_at_once(served, writer, store):
    served.grant(100)
    writer.submit(served.open_hold(1)).result(10)  # the writer has begun
    writer._conn.execute(f"PRAGMA max_page_count = {served.one('PRAGMA page_count')}")

    async def create(client, names):
        for name in names:
            await client.change(
                lambda conn, name=name: operations.create_team(
                    conn, name, "free", by=operations.Author("test", served.now_ms)
                )
            )

    with closing(LedgerClient(store, writer)) as client:
        with pytest.raises(OverloadedError, match="disk is full, nothing was changed") as refusal:
            asyncio.run(create(client, [f"team-{number}" for number in range(1000)]))
        assert (refusal.value.code, refusal.value.retry_after_s) == ("disk_full", 60.0)
        writer._conn.execute("PRAGMA max_page_count = 1000000")
        asyncio.run(create(client, ["late"]))
    assert served.one("SELECT count(*) FROM teams WHERE team = 'late'") == 1
    served.assert_clean()


def test_free_bytes_are_those_of_the_disk(tmp_path):
    assert 0 < data_dir.free_bytes(tmp_path) < 2**63
    assert data_dir.is_nearly_full(tmp_path) == (data_dir.free_bytes(tmp_path) < data_dir.RESERVE_BYTES)
