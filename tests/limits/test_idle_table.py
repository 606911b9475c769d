from __future__ import annotations

from inferd.limits.idle_table import IdleTable


class Entry:
    def __init__(self, idle_from_ms):
        self.idle_from_ms = idle_from_ms

    def is_idle(self, now_ms):
        return now_ms >= self.idle_from_ms


def test_an_entry_is_made_once():
    table = IdleTable()
    entry = table.get("a", lambda: Entry(100), 0)
    assert table.get("a", lambda: Entry(100), 50) is entry
    assert table.find("a") is entry
    assert table.find("b") is None


def test_idle_entries_go_while_others_are_used():
    table = IdleTable()
    for number in range(1_000):
        table.get(number, lambda: Entry(100), 0)
    kept = table.get("kept", lambda: Entry(10**9), 0)
    for _ in range(1_100):
        table.get("kept", lambda: Entry(10**9), 100)
    assert len(table) == 1
    assert table.find("kept") is kept


def test_a_stream_of_new_keys_does_not_grow_without_bound():
    table = IdleTable()
    for number in range(10_000):
        table.get(number, lambda number=number: Entry(number + 50), number)
    assert len(table) <= 110
