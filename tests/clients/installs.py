"""Clients in environments of their own, installed at their first use from files that pin every package.

They lie in the cache folder ($XDG_CACHE_HOME, else ~/.cache), one folder for each state of the pinning file, so a
change of a pin installs anew. Delete the folder `inferd-tests` there to free the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferd-tests"
NODE_MIN = 20
INSTALL_S = 900.0
_UNREACHABLE = (
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ENETUNREACH",
    "ENOTFOUND",
    "ETIMEDOUT",
    "Failed to establish a new connection",
    "Network is unreachable",
    "Temporary failure in name resolution",
)
"""Texts of pip and npm for a registry that cannot be reached."""


class NotInstalledError(Exception):
    """A client that this machine cannot have: no interpreter for it, or no way to its registry."""


def python_client(requirements: Path, name: str) -> Path:
    """Return the interpreter of an environment with exactly the packages of `requirements`, checked by their hashes.

    Raises:
        NotInstalledError: the registry cannot be reached.
    """
    version = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    folder = CACHE / f"{name}-{version}-{_digest(requirements)}"
    python = folder / "bin" / "python"
    with _installing(folder) as is_missing:
        if is_missing:
            install([sys.executable, "-m", "venv", str(folder)], folder)
            # The file has all packages. Resolving again, pip may look at a version that is not pinned, and refuse it.
            pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            install([*pip, "-r", str(requirements)], folder)
    return python


def node_client(project: Path, name: str, *, rebuilt: Sequence[str] = ()) -> Path:
    """Return a folder with `node_modules` as the lock file of `project` pins them.

    Args:
        rebuilt: packages whose install scripts run; no other package's script does.

    Raises:
        NotInstalledError: there is no node that is new enough, or the registry cannot be reached.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalledError("needs npm")
    node_program()
    folder = CACHE / f"{name}-{_digest(project / 'package-lock.json')}"
    with _installing(folder) as is_missing:
        if is_missing:
            for file in ("package.json", "package-lock.json"):
                shutil.copy(project / file, folder)
            # Not `npm ci`: it wants every platform's packages in the lock, and the registry does not have all of them.
            install([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
            if rebuilt:
                install([npm, "rebuild", *rebuilt], folder)
    return folder


def node_program() -> str:
    """Return the path of node. Raises NotInstalledError if there is none, or an old one."""
    node = shutil.which("node")
    if node is None:
        raise NotInstalledError("needs node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < NODE_MIN:
        raise NotInstalledError(f"needs Node {NODE_MIN}, this is {version.strip()}")
    return node


def java_program() -> str:
    """Return the path of java, which compiles a program of one file as it runs it. Raises NotInstalledError."""
    java = shutil.which("java")
    if java is None:
        raise NotInstalledError("needs java")
    return java


def install(command: Sequence[str], folder: Path) -> None:
    """Run a command of an installation. Raises NotInstalledError if it fails for want of a network."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    said = f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    if done.returncode != 0 and any(text in said for text in _UNREACHABLE):
        raise NotInstalledError(f"the registry cannot be reached: {said[-500:]}")
    assert done.returncode == 0, said


@contextmanager
def _installing(folder: Path) -> Iterator[bool]:
    """Whether `folder` lacks a complete installation; if it does, it is empty, and complete afterwards.

    One process installs at a time: two workers of a test run may want one client.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = folder / "complete"
        is_missing = not complete.exists()
        if is_missing:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        yield is_missing
        complete.touch()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
