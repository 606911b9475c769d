from __future__ import annotations

from inferd.engine.llama.host_memory import available_bytes

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
