"""50,000 lines and 200 MB go by the disk: what is in memory does not grow with a file."""

from __future__ import annotations

import json
import tracemalloc

import msgspec
import pytest

from inferd.ledger.batches.records import find_batch
from inferd.server.transport.upload import MAX_FILE_BYTES
from inferd.serving.batches.batch_context import InputLimits
from inferd.serving.batches.batch_validation import BatchValidation
from inferd.serving.batches.input_lines import LineReader
from inferd.serving.batches.line_run import LineAttempts
from inferd.serving.batches.results import write_results
from inferd.serving.batches.spool import Record, encode_record, spool_name
from tests.serving.batches.customer import line

pytestmark = pytest.mark.anyio
N_LINES = 1000
TAGS = {f"tag-{number}": "x" * 512 for number in range(16)}
"""8 KB that are nobody's tokens."""


@pytest.fixture
def peak_bytes():
    """Of Python's memory, from the test's `tracemalloc.reset_peak` on."""
    tracemalloc.start()
    yield lambda before: tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()


def traced():
    tracemalloc.reset_peak()
    return tracemalloc.get_traced_memory()[0]


def test_input_file_limits_are_openais():
    """R23"""
    assert (InputLimits().max_lines, MAX_FILE_BYTES) == (50_000, 200_000_000)


async def test_upload_is_written_as_it_comes(provider, peak_bytes):
    size, chunk = 24_000_000, b"x" * 50_000

    async def form():
        yield b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        for _ in range(size // len(chunk)):
            yield chunk
        yield b"\r\n--b--\r\n"

    before = traced()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = await provider.client.post("/v1/files", content=form(), headers=headers)
    assert response.json()["bytes"] == size
    assert peak_bytes(before) < size / 4


async def test_validation_holds_one_line_in_memory(provider, customer, peak_bytes):
    lines = [line(str(number), metadata=TAGS, max_tokens=1) for number in range(N_LINES)]
    created = await customer.create(lines)
    path = provider.files.path(created["input_file_id"])
    with provider.store.reading() as conn:
        batch = find_batch(conn, created["id"])
    caller = provider.authenticator.recall(provider.key.split("-")[2], 1, "inference", None)
    reader = LineReader(provider.router, "/v1/chat/completions", strict=False)
    with provider.files.begin("spool") as spool:
        before = traced()
        attempts = LineAttempts(provider.files, batch.batch_id)
        validation = BatchValidation(batch, provider.batch_context, reader, attempts, lambda: False)
        found = validation.check_lines(path, caller, spool)
    assert (found.num_lines, found.num_invalid, found.fatal) == (N_LINES, 0, None)
    assert path.stat().st_size > 8_000_000
    assert peak_bytes(before) < 1_000_000


async def test_results_hold_one_answer_in_memory(provider, customer, peak_bytes):
    batch = await customer.create([line(str(number)) for number in range(N_LINES)])
    refusal = json.dumps({"error": "x" * 8000}).encode()
    with provider.files.path(spool_name(batch["id"])).open("wb") as spool:
        for number in range(1, N_LINES // 2):
            spool.write(
                encode_record(Record(line=number, custom_id=str(number), status=400, body=msgspec.Raw(refusal)))
            )
    with provider.store.reading() as conn:
        record = find_batch(conn, batch["id"])
        before = traced()
        results = write_results(provider.files, conn, record, 1)
    assert results.num_failed == N_LINES
    assert results.errors.num_bytes > 4_000_000
    assert peak_bytes(before) < 1_000_000
