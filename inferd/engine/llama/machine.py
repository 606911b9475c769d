"""Cores and memory of this machine that the process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores(quota_file: Path = _CGROUP_QUOTA) -> int:
    """Cores that this process may use: its affinity, cut by the cgroup's quota (cgroup v2: `MAX PERIOD` in us).
    More threads than that would spin against each other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota_us, period_us = quota_file.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota_us == "max" else max(1, min(cores, int(quota_us) // int(period_us)))


_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """What Linux thinks can be had without swapping (proc(5), MemAvailable), cut by the cgroup's limit (v2); elsewhere
    all physical memory; None if that is not told either."""
    sizes = [size for size in (_system_bytes(meminfo), _cgroup_bytes(cgroup)) if size is not None]
    return min(sizes, default=None)


def _system_bytes(meminfo: Path) -> int | None:
    try:
        return _field(meminfo.read_text(), "MemAvailable:") * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _cgroup_bytes(folder: Path) -> int | None:
    """Files that were not read for a while give way, so they count as free."""
    try:
        limit = int((folder / "memory.max").read_text())  # "max" where there is none
        taken = int((folder / "memory.current").read_text())
        return max(0, limit - taken + _field((folder / "memory.stat").read_text(), "inactive_file"))
    except (OSError, ValueError):
        return None


def _field(text: str, name: str) -> int:
    """Raises ValueError."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    raise ValueError(f"there is no {name}")
