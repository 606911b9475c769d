from __future__ import annotations

import os

import pytest

from inferd.engine.llama import threads
from inferd.engine.llama.threads import available_cores


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
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 3)
    assert available_cores(tmp_path / "cpu.max") == 3
