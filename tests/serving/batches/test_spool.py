"""What lies in DATA/files, and what a start finds there."""

from __future__ import annotations

import os

import pytest

from inferd.serving.batches.input_lines import MAX_LINE_BYTES, read_lines
from inferd.serving.batches.spool import Record, Spool, encode_record, spool_name
from inferd.serving.file_store import FileStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def files(tmp_path):
    return FileStore(tmp_path)


def test_file_store_sweep_deletes_unknown_files(files):
    for name in ("file-1", "file-2.partial", "batch_1.spool", "batch_2.errors", "file-3"):
        files.path(name).write_text("x")
    files.sweep({"file-1", "batch_1.spool"})
    assert {path.name for path in files.folder.iterdir()} == {"file-1", "batch_1.spool"}


def test_read_lines_numbers_lines_and_cuts_off_a_long_one(tmp_path):
    path = tmp_path / "in"
    path.write_bytes(b"a\r\n\n  \nb\n" + b"x" * (2 * MAX_LINE_BYTES + 5) + b"\nlast")
    lines = list(read_lines(path))
    assert [(line.number, line.text[:4]) for line in lines] == [(1, b"a"), (4, b"b"), (5, b"xxxx"), (6, b"last")]
    assert [len(line.text) > MAX_LINE_BYTES for line in lines] == [False, False, True, False]


@pytest.mark.parametrize("torn", [b"", b'{"line":3', b'{"line":"x"}\n', b"\0\0\0\n"])
async def test_spool_cuts_off_a_torn_record(files, torn):
    path = files.path(spool_name("batch_1"))
    path.write_bytes(encode_record(Record(line=1)) + encode_record(Record(line=2)) + torn)
    spool = Spool(files, "batch_1")
    assert [record.line for record in spool.recover()] == [1, 2]
    await spool.append(Record(line=4))
    await spool.close()
    assert path.read_bytes() == b"".join(encode_record(Record(line=number)) for number in (1, 2, 4))


async def test_spool_append_returns_after_the_sync(files, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(files.path("batch_1.spool").read_bytes()))
    spool = Spool(files, "batch_1")
    await spool.append(Record(line=1, custom_id="a"))
    assert synced[-1] == encode_record(Record(line=1, custom_id="a"))
    await spool.close()
