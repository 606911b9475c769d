"""`inferd serve` and the command line as processes, without an import of inferd."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 180.0
"""Limit of a start or an end, above which it counts as a hang."""
MODULE, _, FUNCTION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["inferd"].partition(
    ":"
)
_READY = re.compile(r"inferd is ready: (http://\S+)/v1")


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "400", "NO_COLOR": "1"}


class Server:
    """`inferd serve`, starting; `stop` ends it."""

    def __init__(self, config: Path, data_dir: Path) -> None:
        code = f"import sys; from {MODULE} import {FUNCTION}; sys.exit({FUNCTION}())"
        arguments = ("serve", "--config", str(config), "--data-dir", str(data_dir), "--port", "0")
        self._output = data_dir.parent / "serve.out"
        with self._output.open("wb") as out, self._output.with_suffix(".log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments], stdout=out, stderr=log, cwd=data_dir.parent, env=environment()
            )

    def until_ready(self) -> str:
        """Return its address, without a path, once it takes requests."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := _READY.search(self._output.read_text())) is None:
            output = self._output.read_text() + self._output.with_suffix(".log").read_text()
            assert self._process.poll() is None, f"the server did not start:\n{output}"
            assert time.monotonic() < deadline_s, f"the server hangs:\n{output}"
            time.sleep(0.05)
        return found[1]

    def stop(self) -> int:
        """Return the exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str


class CommandLine:
    """`inferd ARGUMENTS` on one data folder, each in a process of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        child = [sys.executable, str(Path(__file__).with_name("command_child.py")), MODULE, FUNCTION]
        self._child = subprocess.Popen(
            child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=data_dir.parent, env=environment()
        )

    def bare(self, *arguments: str) -> Done:
        assert self._child.stdin is not None, "a pipe"
        assert self._child.stdout is not None, "a pipe"
        self._child.stdin.write(json.dumps(arguments) + "\n")
        self._child.stdin.flush()
        return Done(**json.loads(self._child.stdout.readline()))

    def run(self, *arguments: str) -> Done:
        return self.bare(*arguments, "--data-dir", str(self.data_dir))

    def json(self, *arguments: str) -> Any:
        """The value that `inferd ARGUMENTS --json` prints."""
        done = self.run(*arguments, "--json")
        assert done.status == 0, done.stderr
        return json.loads(done.stdout)

    def close(self) -> None:
        assert self._child.stdin is not None, "a pipe"
        assert self._child.stdout is not None, "a pipe"
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait(PATIENCE_S)
