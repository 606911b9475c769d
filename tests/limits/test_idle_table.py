"""Tests of the table that drops idle entries."""

from __future__ import annotations

from inferd.limits.rate_limits import IdleTable


class Entry:
    def __init__(self, idle_from_ms):
        self.idle_from_ms = idle_from_ms

    def is_idle(self, now_ms):
        return now_ms >= self.idle_from_ms


def test_idle_table_makes_an_entry_once():
    table = IdleTable()
    entry = table.get("a", lambda: Entry(100), 0)
    assert table.get("a", lambda: Entry(100), 50) is entry
    assert len(table) == 1


def test_idle_table_drops_idle_entries_while_others_are_used():
    table = IdleTable()
    for number in range(1_000):
        table.get(number, lambda: Entry(100), 0)
    kept = table.get("kept", lambda: Entry(10**9), 0)
    for _ in range(1_100):
        table.get("kept", lambda: Entry(10**9), 100)
    assert len(table) == 1
    assert table.get("kept", lambda: Entry(0), 100) is kept


def test_idle_table_stays_bounded_under_a_stream_of_new_keys():
    table = IdleTable()
    for number in range(10_000):
        table.get(number, lambda number=number: Entry(number + 50), number)
    assert len(table) <= 110
