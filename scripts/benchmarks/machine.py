"""What else the machine was doing while something was measured. Linux; elsewhere nothing is known."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Shares of all cores' time, 0 to 1: `others` went to other processes, `niced` to those that give way (mostly
    while the measured ones slept), `stolen` to other virtual machines."""

    others: float
    niced: float
    stolen: float

    @property
    def total(self) -> float:
        """What the measured ones could not have."""
        return self.others + self.stolen

    def __str__(self) -> str:
        return f"others {self.others:.0%}, niced {self.niced:.0%}, stolen {self.stolen:.0%}"


class Watch:
    """Watches the machine while `pid` (a server with all its threads) and this process are measured. A second busy
    process makes OpenMP's threads wait for each other: on two cores it can cost nine tenths of the speed."""

    def __init__(self, pid: int | None) -> None:
        self._pids = [os.getpid(), *([pid] if pid else [])]
        self._started_s = time.perf_counter()
        self._started = self._read()

    def stop(self) -> Disturbance:
        cores_s = (time.perf_counter() - self._started_s) * (os.cpu_count() or 1)
        busy, niced, stolen, ours = (after - before for before, after in zip(self._started, self._read(), strict=True))
        return Disturbance(max(0.0, busy - ours) / cores_s, niced / cores_s, stolen / cores_s)

    def _read(self) -> tuple[float, float, float, float]:
        """Seconds so far: all cores busy, niced, stolen, and of our processes."""
        if not (_PROC / "stat").exists():
            return 0.0, 0.0, 0.0, 0.0
        user, nice, system, _, _, irq, softirq, steal = map(int, (_PROC / "stat").read_text().split()[1:9])
        ours = 0
        for pid in self._pids:
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ours += int(fields[11]) + int(fields[12])  # utime, stime: proc_pid_stat(5)
        # proc_stat(5): `user` is without `nice`.
        busy = user + system + irq + softirq
        return busy / _TICKS_PER_S, nice / _TICKS_PER_S, steal / _TICKS_PER_S, ours / _TICKS_PER_S


def resident_mib(pid: int) -> float:
    """A process's memory in RAM; 0 where that is not known."""
    return int(_status(pid).get("VmRSS", "0 kB").split()[0]) / 1024


def num_threads(pid: int) -> int:
    """0 where that is not known."""
    return int(_status(pid).get("Threads", "0"))


def _status(pid: int) -> dict[str, str]:
    """The fields of proc_pid_status(5)."""
    status = _PROC / str(pid) / "status"
    return dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}


def num_open_files(pid: int) -> int:
    """0 where that is not known."""
    folder = _PROC / str(pid) / "fd"
    return len(list(folder.iterdir())) if folder.exists() else 0


def wait_until_idle(*, others_max: float, timeout_s: float) -> None:
    """Waits for a second in which other processes took less than that share of the cores, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        watch = Watch(None)
        time.sleep(1.0)
        if watch.stop().others < others_max:
            return
