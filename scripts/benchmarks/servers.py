"""Starts and stops the servers that are compared, one at a time."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.identity.keys import DEFAULT_SCOPES
from inferd.ledger.storage.store import Store

PORT = 8765
START_TIMEOUT_S = 120.0
INFERD = "import sys; from inferd.cli.main import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Server:
    """A running one.

    Attributes:
        other_key: of another team, where there are teams.
        pid: its process, if it is one of this machine.
    """

    name: str
    base_url: str
    key: str
    model: str
    other_key: str | None = None
    pid: int | None = None


@contextmanager
def inferd(
    model: Path,
    *,
    n_parallel: int,
    max_context: int,
    host_cache_mib: int,
    two_teams: bool = False,
    two_engines: bool = False,
) -> Iterator[Server]:
    """`inferd serve` on a data folder of its own."""
    sizes = (
        f'source = "{model}"\nmax_context = {max_context}\nn_parallel = {n_parallel}\n'
        f"host_cache_mib = {host_cache_mib}\n"
    )
    plain = (
        f"[models.plain]\n{sizes}"
        '[deployments."bench/plain"]\nmodel = "plain"\nserverless = true\nusd_per_1m_tokens = 0.1\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "models.toml"
        config.write_text(
            f"[models.m]\n{sizes}speculation = {str(two_engines).lower()}\n"
            '[deployments."bench/m"]\nmodel = "m"\nserverless = true\nusd_per_1m_tokens = 0.1\n'
            "priority_multiplier = 1.5\nflex = true\n"
            '[deployments."bench/timed"]\nmodel = "m"\nserverless = true\nusd_per_second = 0.000001\n'
            "priority_multiplier = 1.5\nflex = true\n" + (plain if two_engines else "")
        )
        data = Path(folder) / "data"
        command = [sys.executable, "-c", INFERD]
        words = ["serve", "--config", str(config), "--data-dir", str(data), "--port", str(PORT)]
        with _process([*command, *words, "--log-level", "warning"], "/health") as pid:
            key = (data / "default.key").read_text().strip()
            other_key = _second_team(command, data) if two_teams else None
            yield Server("inferd", _url(), key, "bench/m", other_key, pid)


@contextmanager
def any_inferd(folder: Path, models_toml: str) -> Iterator[Server]:
    """`inferd serve` of this models.toml, its ledger in `folder`/data, on a free port. `new_team` makes its teams."""
    config, output = folder / "models.toml", folder / "output"
    config.write_text(models_toml)
    words = ["serve", "--config", str(config), "--data-dir", str(folder / "data"), "--port", "0"]
    command = [sys.executable, "-c", INFERD, *words, "--log-level", "error"]
    with output.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            while (ready := re.search(r"inferd is ready: (http://\S+/v1)", output.read_text())) is None:
                if process.poll() is not None:
                    raise SystemExit(f"the server ended:\n{output.read_text()}")
                time.sleep(0.1)
            yield Server("inferd", ready[1], "", "", pid=process.pid)
        finally:
            process.terminate()


def new_team(data: Path, team: str, tier: int, scopes: Sequence[str] = DEFAULT_SCOPES) -> str:
    """The key of a new team with 100 USD of credit."""
    now_ms = wall_clock_ms()
    with Store(data).immediate() as conn:
        operations.create_team(conn, team, "academic", by=operations.Author("bench", now_ms))
        operations.grant_credit(conn, team, operations.NewGrant(10**11), by=operations.Author("bench", now_ms))
        operations.set_team(conn, team, operations.TeamChange(tier=tier), by=operations.Author("bench", now_ms))
        return operations.create_key(
            conn, team, operations.KeyRequest(scopes=scopes), by=operations.Author("bench", now_ms)
        ).key


def _second_team(command: list[str], data: Path) -> str:
    """Made beside the running server, as an operator would."""
    key = ""
    for words in (
        ["teams", "create", "second", "--plan", "enterprise"],
        ["credits", "grant", "second", "10"],
        ["keys", "create", "--team", "second"],
    ):
        run = [*command, *words, "--data-dir", str(data)]
        done = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True)
        key = next((word for word in done.stdout.split() if word.startswith("sk-")), key)
    assert key, "keys create shows the key"
    return key


@contextmanager
def llama_server(binary: Path, model: Path, *, n_parallel: int, max_context: int) -> Iterator[Server]:
    """llama-server with unified KV and room for as many sequences of the same length."""
    words = [str(binary), "-m", str(model), "--port", str(PORT), "-np", str(n_parallel), "-kvu", "--jinja"]
    words += ["-c", str(max_context * n_parallel), "--no-ui", "-t", str(os.cpu_count())]
    with _process(words, "/health") as pid:
        yield Server(f"llama-server -np {n_parallel}", _url(), "none", "m", pid=pid)


@contextmanager
def example_server(python: Path, script: Path, model: Path, *, n_parallel: int, max_context: int) -> Iterator[Server]:
    """llama-cpp-python's examples/server, run by a Python that has what the script's head asks for. It keeps what is
    cached in sequences of their own, 64 in its own configurations."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        options = {
            "path": str(model),
            "alias": "m",
            "n_ctx": max_context * n_parallel,
            "n_seq_max": max(64, n_parallel),
            "max_seq_len": max_context,
            "n_batch": 2048,
            "n_ubatch": 512,
            "store_logits": False,
        }
        config.write_text(json.dumps({"server": {"port": PORT}, "model": options}))
        with _process([str(python), str(script), "-C", str(config)], "/healthz") as pid:
            yield Server("examples/server", _url(), "none", "m", pid=pid)


def _url() -> str:
    return f"http://127.0.0.1:{PORT}/v1"


@contextmanager
def _process(words: list[str], health: str) -> Iterator[int]:
    if shutil.which(words[0]) is None:
        raise SystemExit(f"{words[0]} is not there")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the server would outlive us
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(process, health)
            yield process.pid
        except Exception:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-3000:])
            raise
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_healthy(process: subprocess.Popen[bytes], path: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=2) as response:
                if response.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the server did not become healthy")
