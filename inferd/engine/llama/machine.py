"""Cores and memory of this machine that the process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_QUOTA = _CGROUP / "cpu.max"
_MEMINFO = Path("/proc/meminfo")


def available_cores(quota_file: Path = _CGROUP_QUOTA) -> int:
    """Return the cores that this process may use: its affinity, limited by the cgroup's quota (cgroup v2: `MAX PERIOD`
    in us). More threads than that would spin against each other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota_us, period_us = quota_file.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota_us == "max" else max(1, min(cores, int(quota_us) // int(period_us)))


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Return the bytes that can be had without swapping by Linux's estimate (proc(5), MemAvailable), limited by the
    cgroup (v2); elsewhere all physical memory; None if that is unknown."""
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
    """Return the bytes within the limit. Cached files that were not read lately can be reclaimed, so they are free."""
    try:
        limit = int((folder / "memory.max").read_text())  # "max" for no limit
        taken = int((folder / "memory.current").read_text())
        return max(0, limit - taken + _field((folder / "memory.stat").read_text(), "inactive_file"))
    except (OSError, ValueError):
        return None


def _field(text: str, name: str) -> int:
    """Return the number behind a name in `text`. Raises ValueError."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    raise ValueError(f"there is no {name}")
