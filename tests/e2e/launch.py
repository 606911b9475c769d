"""`python -m tests.e2e.launch [--fake] [--drain S] [--die before|after OpenHold|SettleHold N] serve ...`: the real
command, with faults.

--fake takes a runner of bytes for llama.cpp, so that a start takes no longer than Python's. --drain says how long a
stop waits for requests. --die ends the process with SIGKILL at the N-th commit of a group that holds such a command,
and leaves beside the data folder, in died.json, what was in the group: a list of [command, request id]. `spooled` and
`torn` instead of a moment end it when answers of batches were synced for the N-th time, and amid writing them; `stored`
when a file whose name holds the second word got its name. The second word may be a function of batch_progress or
operations, too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from inferd.cli import composition
from inferd.cli.main import main
from inferd.config import ModelConfig
from inferd.deployments import local_replica
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.core import EngineCore
from inferd.engine.model_core import ModelCore
from inferd.ledger import operations
from inferd.ledger.batches import progress as batch_progress
from inferd.ledger.storage.writer import LedgerWriter
from inferd.serving.batches.spool import Spool
from inferd.serving.file_store import FileStore
from tests.fake_cells import UnifiedFakeRunner
from tests.fake_embedder import fake_model_core
from tests.fakes import FakeRunner
from tests.serving.provider import FakeModel

STEP_S = 0.002


class SlowRunner(FakeRunner):
    """Takes as long for a step as a small model on a fast machine, and forgets what tests of the engine look at."""

    def execute(self, batch: Any) -> int:
        time.sleep(STEP_S)
        self.rows_per_step.clear()
        self.rows_by_sequence.clear()
        return super().execute(batch)


class SlowUnifiedRunner(UnifiedFakeRunner):
    """The same, with one pool of cells."""

    def execute(self, batch: Any) -> int:
        time.sleep(STEP_S)
        self.rows_per_step.clear()
        self.rows_by_sequence.clear()
        return super().execute(batch)


def _build_fake_core(model: FakeModel, config: ModelConfig, _: ComputeTurn) -> ModelCore:
    memory = config.kv_memory
    sizes: dict[str, int] = {
        "max_sequences": memory.n_seq_max,
        "max_running": memory.n_running_max,
        "max_rows": config.n_ubatch,
        "cells_per_sequence": memory.max_context,
    }
    runner = SlowUnifiedRunner(num_pool_cells=memory.n_cells, **sizes) if memory.is_unified else SlowRunner(**sizes)
    return fake_model_core(EngineCore(runner), max_rows=config.n_ubatch)


def take_fakes() -> None:
    local_replica.load_model = lambda path, **options: FakeModel()  # type: ignore[assignment]
    local_replica.fitting_memory = lambda model, config: config.kv_memory  # type: ignore[assignment]
    local_replica.build_core = _build_fake_core  # type: ignore[assignment]


def die_at(moment: Literal["before", "after"], command: str, nth: int, report: Path) -> None:
    """Patches the one place where the ledger's writer commits."""
    commit = LedgerWriter._commit
    seen = 0

    def commit_or_die(self: LedgerWriter, group: Sequence[Any]) -> None:
        nonlocal seen
        # The ledger's maintenance (expiry, the clock) writes too, for no request.
        commands = [queued.command for queued in group if hasattr(queued.command, "request_id")]
        content = [(type(command).__name__, command.request_id) for command in commands]
        seen += any(name == command for name, _ in content)
        dies = seen == nth and any(name == command for name, _ in content)
        if dies:
            report.write_text(json.dumps(content))
        if not dies or moment == "after":
            commit(self, group)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal is on its way; nobody is to be told of the commit before it comes

    LedgerWriter._commit = commit_or_die  # type: ignore[method-assign]


def die_spooling(moment: Literal["spooled", "torn"], nth: int) -> None:
    """Between the sync of a batch's answers and their settlement, or with half of them written."""
    write = Spool._write
    seen = 0

    def write_or_die(self: Spool, data: bytes) -> None:
        nonlocal seen
        seen += 1
        write(self, data[: len(data) // 2] if seen == nth and moment == "torn" else data)
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    Spool._write = write_or_die  # type: ignore[method-assign]


def die_storing(part: str, nth: int) -> None:
    """When a file was synced and named, and nobody knows of it yet."""
    finish = FileStore.finish
    seen = 0

    def finish_and_die(self: FileStore, name: str, file: Any) -> int:
        nonlocal seen
        num_bytes = finish(self, name, file)
        seen += part in name
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return num_bytes

    FileStore.finish = finish_and_die  # type: ignore[method-assign]


def die_changing(module: Any, moment: Literal["before", "after"], function: str, nth: int) -> None:
    """Before or after the commit of a change of the ledger, which is a function of the module."""
    change, commit = getattr(module, function), LedgerWriter._commit
    seen = 0

    def change_and_count(*arguments: Any, **named: Any) -> Any:
        nonlocal seen
        result = change(*arguments, **named)
        seen += 1
        return result

    def commit_or_die(self: LedgerWriter, group: Sequence[Any]) -> None:
        if seen < nth or moment == "after":
            commit(self, group)
        if seen >= nth:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    setattr(module, function, change_and_count)
    LedgerWriter._commit = commit_or_die  # type: ignore[method-assign]


def run(arguments: list[str]) -> int:
    if arguments[0] == "--fake":
        take_fakes()
        del arguments[0]
    if arguments[0] == "--drain":
        composition.DRAIN_TIMEOUT_S = float(arguments[1])
        del arguments[:2]
    if arguments[0] == "--die":
        _, moment, command, nth = arguments[:4]
        del arguments[:4]
        if moment in ("spooled", "torn"):
            die_spooling(moment, int(nth))  # type: ignore[arg-type]
            return main(arguments)
        if moment == "stored":
            die_storing(command, int(nth))
            return main(arguments)
        for module in (batch_progress, operations):
            if hasattr(module, command):
                die_changing(module, moment, command, int(nth))  # type: ignore[arg-type]
                return main(arguments)
        data_dir = Path(arguments[arguments.index("--data-dir") + 1])
        die_at(moment, command, int(nth), data_dir.parent / "died.json")  # type: ignore[arg-type]
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
