"""Room on the ledger's disk. New work is refused while there is still room for what is under way to be settled."""

from __future__ import annotations

import os
from pathlib import Path

# What a settlement writes is some 60 KB of WAL at most, so this settles a thousand requests that run at once; nobody
# serves so many from one workstation.
RESERVE_BYTES = 64 * 2**20


def free_bytes(folder: Path) -> int:
    """What this process may still write to the folder's disk."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def is_nearly_full(folder: Path) -> bool:
    return free_bytes(folder) < RESERVE_BYTES
