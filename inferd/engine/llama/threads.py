"""How many threads may compute here."""

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
