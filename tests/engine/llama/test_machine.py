from __future__ import annotations

import os

import pytest

from inferd.engine.llama import machine
from inferd.engine.llama.machine import available_bytes, available_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("", 8),
        ("nonsense\n", 8),
    ],
)
def test_cores_are_affinity_cut_by_the_quota(tmp_path, quota, cores) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert available_cores(file) == cores


def test_without_a_quota_file_affinity_counts(tmp_path) -> None:
    assert available_cores(tmp_path / "cpu.max") == 8


def test_where_affinity_is_unknown_all_cores_count(tmp_path, monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 3)
    assert available_cores(tmp_path / "cpu.max") == 3


MEMINFO = "MemTotal:       24683520 kB\nMemFree:         100 kB\nMemAvailable:   2048 kB\n"


def folder(tmp_path, *, limit="max", taken=0, inactive=0):
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{taken}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return tmp_path / "meminfo", tmp_path


def test_it_is_what_the_system_can_give(tmp_path) -> None:
    assert available_bytes(*folder(tmp_path)) == 2048 * 1024


def test_the_limit_of_a_cgroup_cuts_it(tmp_path) -> None:
    assert available_bytes(*folder(tmp_path, limit=10_000, taken=9_000, inactive=500)) == 1_500
    assert available_bytes(*folder(tmp_path, limit=10_000, taken=20_000)) == 0


def test_elsewhere_it_is_all_physical_memory(tmp_path) -> None:
    found = available_bytes(tmp_path / "none", tmp_path)
    assert found is not None
    assert found > 2**28
