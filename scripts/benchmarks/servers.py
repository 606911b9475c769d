"""Starts and stops the servers that are compared, one at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PORT = 8765
START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running one."""

    name: str
    base_url: str
    key: str
    model: str


@contextmanager
def inferd(model: Path, *, n_parallel: int, max_context: int, host_cache_mib: int) -> Iterator[Server]:
    """`inferd serve` on a data folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "models.toml"
        config.write_text(
            f'[models.m]\nsource = "{model}"\nmax_context = {max_context}\nn_parallel = {n_parallel}\n'
            f"host_cache_mib = {host_cache_mib}\n"
            '[deployments."bench/m"]\nmodel = "m"\nserverless = true\nusd_per_1m_tokens = 0.1\n'
        )
        data = Path(folder) / "data"
        words = [sys.executable, "-m", "inferd.cli.main", "serve", "--config", str(config), "--data-dir", str(data)]
        with _process([*words, "--port", str(PORT), "--log-level", "warning"]):
            key = (data / "default.key").read_text().strip()
            yield Server("inferd", f"http://127.0.0.1:{PORT}/v1", key, "bench/m")


@contextmanager
def llama_server(binary: Path, model: Path, *, n_parallel: int, max_context: int) -> Iterator[Server]:
    """llama-server with unified KV and room for as many sequences of the same length."""
    words = [str(binary), "-m", str(model), "--port", str(PORT), "-np", str(n_parallel), "-kvu", "--jinja"]
    words += ["-c", str(max_context * n_parallel), "--no-webui", "-t", str(os.cpu_count())]
    with _process(words):
        yield Server(f"llama-server -np {n_parallel}", f"http://127.0.0.1:{PORT}/v1", "none", "m")


@contextmanager
def _process(words: list[str]) -> Iterator[None]:
    if shutil.which(words[0]) is None:
        raise SystemExit(f"{words[0]} is not there")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(process)
            yield
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-3000:])
            raise
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_healthy(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2) as response:
                if response.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server did not become healthy")
