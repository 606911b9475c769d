"""Lines that end the process: counted in a file, and failed at the third time."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.errors import InvalidRequestError
from inferd.ledger.batches.records import BatchRecord
from inferd.serving.batches.batch_validation import BatchValidation
from inferd.serving.batches.line_run import MAX_ATTEMPTS, LineAttempts, LineRun, attempts_name
from inferd.serving.file_store import FileStore
from tests.serving.batches.customer import line

pytestmark = pytest.mark.anyio

BATCH_ID = "batch_1"


@pytest.fixture
def files(tmp_path) -> FileStore:
    return FileStore(tmp_path)


def write_unended(files: FileStore, batch_id: str, number: int, times: int) -> None:
    """As so many processes leave it that died at a line."""
    for _ in range(times):
        LineAttempts(files, batch_id).begin(number)


def test_line_begun_three_times_without_an_end_is_refused(files):
    write_unended(files, BATCH_ID, 7, MAX_ATTEMPTS)
    attempts = LineAttempts(files, BATCH_ID)
    assert (attempts.num_unended(7), attempts.num_unended(8)) == (MAX_ATTEMPTS, 0)
    with pytest.raises(InvalidRequestError) as refusal:
        attempts.begin(7)
    assert refusal.value.code == "line_ended_the_server"
    attempts.begin(8)


def test_line_that_ends_is_not_counted(files):
    for _ in range(2 * MAX_ATTEMPTS):
        attempts = LineAttempts(files, BATCH_ID)
        attempts.begin(7)
        attempts.end(7)
        attempts.close()
    assert LineAttempts(files, BATCH_ID).num_unended(7) == 0


def test_torn_record_is_not_counted(files):
    write_unended(files, BATCH_ID, 7, 1)
    with files.path(attempts_name(BATCH_ID)).open("ab") as file:
        file.write(b"+8")
    assert LineAttempts(files, BATCH_ID).num_unended(8) == 0


async def test_batch_that_is_validated_a_fourth_time_fails_the_line_and_goes_on(provider, customer):
    lines = [line(str(number), max_tokens=1) for number in range(3)]
    batch = await customer.create(lines)
    write_unended(FileStore(provider.store.data_dir), batch["id"], 2, MAX_ATTEMPTS)
    async with provider.batching():
        batch = await customer.until(batch["id"], "completed", "failed")
    assert batch["status"] == "completed"
    output = await customer.lines_of(batch["output_file_id"])
    errors = await customer.lines_of(batch["error_file_id"])
    assert (output.keys(), errors.keys()) == ({"0", "2"}, {"1"})
    assert errors["1"]["error"]["code"] == "line_ended_the_server"
    assert not FileStore(provider.store.data_dir).path(attempts_name(batch["id"])).exists()


def after_validation(monkeypatch, number: int, times: int) -> None:
    """The line was begun so often in processes that died while it ran."""
    validate = BatchValidation.run

    async def run(self: BatchValidation) -> BatchRecord | None:
        batch = await validate(self)
        for _ in range(times):
            self._attempts.begin(number)
        return batch

    monkeypatch.setattr(BatchValidation, "run", run)


async def test_batch_that_runs_a_line_a_fourth_time_fails_it_and_goes_on(provider, customer, monkeypatch):
    after_validation(monkeypatch, 2, MAX_ATTEMPTS)
    async with provider.batching():
        batch = await customer.create([line(str(number), max_tokens=1) for number in range(3)])
        batch = await customer.until(batch["id"], "completed", "failed")
    output = await customer.lines_of(batch["output_file_id"])
    errors = await customer.lines_of(batch["error_file_id"])
    assert (output.keys(), errors.keys()) == ({"0", "2"}, {"1"})
    assert errors["1"]["response"]["body"]["error"]["code"] == "line_ended_the_server"


async def test_line_that_may_end_the_server_runs_alone(provider, customer, monkeypatch):
    after_validation(monkeypatch, 3, MAX_ATTEMPTS - 1)
    running: set[int] = set()
    beside: dict[int, set[int]] = {}
    run = LineRun.run

    async def watched(self: LineRun, *args: Any) -> None:
        number = self._line.number
        running.add(number)
        for other in running:
            beside.setdefault(other, set()).update(running - {other})
        beside[number].update(running - {number})
        await run(self, *args)
        running.discard(number)

    monkeypatch.setattr(LineRun, "run", watched)
    async with provider.batching():
        batch = await customer.create([line(str(number), max_tokens=20) for number in range(6)])
        batch = await customer.until(batch["id"], "completed", "failed")
    assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
    assert beside.pop(3) == set()
    assert beside[1] == {2}
