"""`inferd serve` as a process of its own, and what is done to it from outside."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from inferd.ledger import operations
from inferd.ledger.storage.store import Store
from tests.e2e.refold import Export

ROOT = Path(__file__).resolve().parents[2]
INFERD = (str(Path(sys.executable).with_name("inferd")),)
PATIENCE_S = 120.0
"""How long a start or an end may take before it is called a hang; asserts nothing about speed."""

_READY = re.compile(r"inferd is ready: (http://\S+/v1)")


class ServerProcess:
    """Attributes:
    folder: holds models.toml, the data folder and the server's output.
    launcher: the command that stands before `serve`.
    """

    def __init__(self, folder: Path, models_toml: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.config = folder / "models.toml"
        self.config.write_text(models_toml)
        self.base_url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._n_starts = 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed since its last start."""
        return self._output_path.read_text()

    @property
    def log(self) -> str:
        return self._output_path.with_suffix(".log").read_text()

    @property
    def _output_path(self) -> Path:
        return self.folder / f"start-{self._n_starts}.out"

    def start(self, launcher: Sequence[str] = INFERD) -> None:
        """Returns once it is ready."""
        self.spawn(launcher)
        self.base_url = self.until_it_prints(_READY)[1]

    def spawn(self, launcher: Sequence[str] = INFERD) -> None:
        """Returns at once."""
        assert not self.is_running, "one process a data folder"
        self._n_starts += 1
        arguments = ("serve", "--config", str(self.config), "--data-dir", str(self.data_dir), "--port", "0")
        with self._output_path.open("wb") as out, self._output_path.with_suffix(".log").open("wb") as log:
            self._process = subprocess.Popen([*launcher, *arguments], stdout=out, stderr=log, cwd=ROOT)

    def until_it_prints(self, pattern: re.Pattern[str]) -> re.Match[str]:
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := pattern.search(self.output)) is None:
            assert self.is_running, f"it did not start:\n{self.output}\n{self.log}"
            assert time.monotonic() < deadline_s, f"it hangs:\n{self.output}\n{self.log}"
            time.sleep(0.02)
        return found

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it was started"
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status; minus the signal's number if one ended it."""
        assert self._process is not None, "it was started"
        return self._process.wait(PATIENCE_S)

    def stop(self) -> int:
        """As Ctrl-C does it; 0 if it was not running."""
        if not self.is_running:
            return 0
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`inferd ARGUMENTS` on the same data folder."""
        words = [*INFERD, *arguments, "--data-dir", str(self.data_dir)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def json(self, *arguments: str) -> Any:
        """What `inferd ARGUMENTS --json` prints."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def export(self) -> Export:
        done = self.command("ledger", "export")
        assert done.returncode == 0, done.stderr
        return Export(done.stdout.splitlines())

    def assert_audit_clean(self) -> None:
        done = self.command("audit")
        assert done.returncode == 0, done.stdout + done.stderr

    def team(self, name: str, credit_nanousd: int) -> Team:
        """A new team with this credit and one key, made beside the running server; on a plan that blocks at zero,
        and in the tier without rate limits."""
        now_ms = time.time_ns() // 1_000_000
        with Store(self.data_dir).immediate() as conn:
            operations.create_team(conn, name, "academic", by=operations.Author("test", now_ms))
            operations.set_team(conn, name, operations.TeamChange(tier=5), by=operations.Author("test", now_ms))
            if credit_nanousd:
                operations.grant_credit(
                    conn, name, operations.NewGrant(credit_nanousd), by=operations.Author("test", now_ms)
                )
            key = operations.create_key(conn, name, by=operations.Author("test", now_ms))
        return Team(self, name, key.id, key.key)


class Team:
    """A customer of a running server."""

    def __init__(self, server: ServerProcess, name: str, key_id: str, key: str) -> None:
        self.server = server
        self.name = name
        self.key_id = key_id
        self.key = key

    def openai(self) -> OpenAI:
        """The official client; it does not retry, so that each call is one request, and keeps no connection open."""
        return OpenAI(
            base_url=self.server.base_url,
            api_key=self.key,
            max_retries=0,
            timeout=PATIENCE_S,
            default_headers={"connection": "close"},
        )

    def http(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.server.base_url, headers=headers, timeout=PATIENCE_S, limits=limits)

    def usage_rows(self) -> list[dict[str, Any]]:
        """What `inferd usage --by request` says of the team."""
        return list(self.server.json("usage", "--team", self.name, "--by", "request")["rows"])

    def credit(self) -> dict[str, str]:
        return dict(self.server.json("credits", "show", self.name))

    def until_requests_end(self, n_requests: int) -> list[dict[str, Any]]:
        """The usage rows, once there are so many."""
        deadline_s = time.monotonic() + PATIENCE_S
        while len(rows := self.usage_rows()) < n_requests:
            assert time.monotonic() < deadline_s, f"{len(rows)} of {n_requests} requests have ended"
            time.sleep(0.05)
        return rows
