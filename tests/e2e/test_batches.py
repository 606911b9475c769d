"""A batch of 200 lines and a server that is killed amid it, wherever: each line once in output, usage and ledger."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from inferd.ledger import operations
from inferd.ledger.identity.authenticator import Caller
from inferd.ledger.storage.store import Store
from tests.e2e.after_a_crash import read_books
from tests.e2e.refold import nanousd
from tests.e2e.server_process import PATIENCE_S, ServerProcess, Team
from tests.e2e.test_fail_points import FAKE

N_LINES = 200
ENDED = ("completed", "failed", "expired", "cancelled")
# Commits of settlements, and the moment between the sync of answers and their settlement.
POINTS = (
    ("before", "SettleHold", 1),
    ("after", "SettleHold", 3),
    ("before", "OpenHold", 12),
    ("spooled", "SettleHold", 5),
    ("torn", "SettleHold", 4),
)


def request_line(number: int) -> str:
    body = {
        "model": "local/tiny-free" if number % 5 == 0 else "local/tiny",
        "messages": [{"role": "user", "content": f"line {number}"}],
        "max_tokens": 1 + number % 9,
    }
    return json.dumps({"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})


def create(team: Team, n_lines: int) -> Any:
    """Over the official SDK: upload, create."""
    with team.openai() as client:
        content = "\n".join(request_line(number) for number in range(n_lines)).encode()
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        return client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
        )


def until_it_ends(team: Team, batch_id: str) -> Any:
    deadline_s = time.monotonic() + PATIENCE_S
    with team.openai() as client:
        while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
            assert time.monotonic() < deadline_s, f"it hangs: {batch}"
            time.sleep(0.05)
        assert batch_id in [each.id for each in client.batches.list(limit=5)]
        return batch


def assert_each_line_is_there_once(server: ServerProcess, team: Team, batch: Any, n_lines: int) -> None:
    with team.openai() as client:
        output = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
    assert sorted(line["custom_id"] for line in output) == sorted(f"c{number}" for number in range(n_lines))
    export = read_books(server)
    assert export.held() == []
    assert export.faults() == []
    completed = {
        request_id: row
        for request_id, row in export.usage.items()
        if row["team"] == team.name and row["status"] == "completed"
    }
    assert {line["response"]["request_id"] for line in output} == completed.keys()
    for line in output:
        usage, row = line["response"]["body"]["usage"], completed[line["response"]["request_id"]]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (row["prompt_tokens"], row["completion_tokens"])
        assert nanousd(usage["cost"]) == row["cost_nanousd"]
        assert row["service_tier"] == "batch"
    assert all(row["cost_nanousd"] == 0 for row in export.usage.values() if row["status"] != "completed")


def forgive_lines(server: ServerProcess) -> None:
    """Forget which lines were begun when the server was killed: these kills are no line's doing, and a line that is
    begun three times without an end has failed."""
    for attempts in (server.data_dir / "files").glob("*.attempts"):
        attempts.unlink()


def test_a_batch_of_200_lines_survives_kills_in_its_middle(fake_server):
    """R16, R23: each line once in output, usage and ledger, billed as its line says."""
    server = fake_server
    server.start(FAKE)
    team = server.team("batches", 10**9)
    batch = create(team, N_LINES)
    server.kill()
    num_killed = 0
    for moment, command, nth in POINTS:
        server.spawn((*FAKE, "--die", moment, command, str(nth)))
        num_killed += server.wait() == -signal.SIGKILL
        forgive_lines(server)
    assert num_killed == len(POINTS)
    server.start(FAKE)
    batch = until_it_ends(team, batch.id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", N_LINES, 0)
    assert batch.error_file_id is None
    assert_each_line_is_there_once(server, team, batch, N_LINES)
    assert [path.name for path in (server.data_dir / "files").glob("*.spool")] == []


# Each step of a batch before and after its lines, with what may be lost at it and what not.
STEPS = (
    ("stored", ".spool", 1),
    ("stored", ".errors", 1),
    ("before", "begin_batch", 1),
    ("after", "begin_batch", 1),
    ("before", "SettleHold", 20),
    ("before", "start_finalizing", 1),
    ("after", "start_finalizing", 1),
    ("stored", "-output", 1),
    ("stored", "-error", 1),
    ("before", "finish_batch", 1),
    ("after", "finish_batch", 1),
)


def test_a_batch_survives_kills_between_each_two_steps_of_its_beginning_and_end(fake_server):
    """R16, R23"""
    server = fake_server
    server.start(FAKE)
    team = server.team("steps", 10**9)
    lines = [*(request_line(number) for number in range(40)), "not a line"]
    with team.openai() as client:
        file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    server.kill()
    with Store(server.data_dir).immediate() as conn:
        made = operations.create_batch(
            conn,
            Caller(team.name, "inference", None, team.key_id, "free"),
            operations.NewBatch("/v1/chat/completions", file.id),
            by=operations.Author("test", time.time_ns() // 1_000_000),
        )
    for step in STEPS:
        server.spawn((*FAKE, "--die", *map(str, step)))
        assert server.wait() == -signal.SIGKILL, step
        forgive_lines(server)
    server.start(FAKE)
    batch = until_it_ends(team, made.batch_id)
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 41, 40, 1)
    assert [error.line for error in batch.errors.data] == [41]
    assert_each_line_is_there_once(server, team, batch, 40)
    left = {path.name for path in (server.data_dir / "files").iterdir()}
    assert left == {file.id, batch.output_file_id, batch.error_file_id, f"{batch.id}.errors"}


def test_a_batch_waits_for_credit_and_goes_on_with_a_grant_of_the_command_line(fake_server):
    """R23"""
    server = fake_server
    server.start(FAKE)
    team = server.team("poor", 100)
    batch = create(team, 40)
    deadline_s = time.monotonic() + PATIENCE_S
    while not any(row["cost_usd"] == "0.000000000" for row in team.usage_rows()):
        assert time.monotonic() < deadline_s, "its free lines are not run"
        time.sleep(0.1)
    with team.openai() as client:
        assert client.batches.retrieve(batch.id).status == "in_progress"
    assert server.command("credits", "grant", "poor", "1").returncode == 0
    batch = until_it_ends(team, batch.id)
    assert batch.status == "completed"
    assert_each_line_is_there_once(server, team, batch, 40)


def test_the_sdk_deletes_files_and_cancels(fake_server):
    server = fake_server
    server.start(FAKE)
    team = server.team("cancels", 10**9)
    batch = create(team, N_LINES)
    assert server.command("batches", "cancel", batch.id).returncode == 0
    batch = until_it_ends(team, batch.id)
    assert batch.status == "cancelled"
    with team.openai() as client:
        for file_id in filter(None, (batch.input_file_id, batch.output_file_id, batch.error_file_id)):
            assert client.files.delete(file_id).deleted
        assert list(client.files.list()) == []
    assert server.json("batches", "show", batch.id)["status"] == "cancelled"


def memory_peak_mib(server: ServerProcess) -> float:
    """Of the server's whole life."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_50_000_lines_in_200_mb_take_no_memory_to_speak_of(fake_server):
    """R23"""
    server, n_lines = fake_server, 50_000
    server.start(FAKE)
    team = server.team("large", 10**9)
    before_mib = memory_peak_mib(server)
    tags = {f"tag-{number}": "x" * 460 for number in range(8)}

    def large_line(number: int) -> str:
        body = {"model": "local/tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
        body["metadata"] = tags
        return json.dumps({"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})

    path = server.folder / "large.jsonl"
    path.write_text("\n".join(large_line(number) for number in range(n_lines)))
    assert 190_000_000 < path.stat().st_size < 200_000_000
    with team.openai() as client:
        file = client.files.create(file=path, purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        while (batch := client.batches.retrieve(batch.id)).status not in ENDED:
            time.sleep(1)
    assert (batch.status, batch.request_counts.completed) == ("completed", n_lines)
    assert memory_peak_mib(server) - before_mib < 100
    assert_each_line_is_there_once(server, team, batch, n_lines)
