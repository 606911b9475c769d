"""The independent refold finds nothing in good books, and whatever number is changed in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.attribution import Attribution
from inferd.ledger import operations
from inferd.ledger.maintenance.retention import RollUpUsage
from inferd.ledger.reports.export import export_lines
from inferd.ledger.requests.holds import OpenHold
from inferd.ledger.requests.settlement import SettleHold, VoidHold, begin_epoch
from inferd.ledger.requests.usage import RecordFree
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.price import Price
from inferd.usage import Usage
from tests.e2e.refold import CHECKED, Export, nanousd, price

NOW_MS = 1_795_176_000_000


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """Two grants, one of them expiring; an old request that was rolled up; a settled one with a part of it refunded, a
    voided, an open, a free one, and a free one with a hold; budgets by day, and alerts."""
    with DataLock(tmp_path) as lock:
        store = Store(tmp_path, lock)
        epoch = begin_epoch(store, NOW_MS)
        with store.immediate() as conn:
            operations.create_team(conn, "acme", by=operations.Author("test", NOW_MS))
            operations.grant_credit(
                conn, "acme", operations.NewGrant(10**9, expires_at_ms=NOW_MS + 5), by=operations.Author("test", NOW_MS)
            )
            key_id = operations.create_key(conn, "acme", by=operations.Author("test", NOW_MS)).id
            attribution = Attribution("acme", "inference", None, key_id, "a/b", "default")
            who: dict[str, Any] = {"attribution": attribution, "admitted_at_ms": NOW_MS}
            asked: dict[str, Any] = {"price": Price(333_333, 700_001), "prompt_tokens": 11, "max_completion_tokens": 7}
            OpenHold(request_id="old", epoch=epoch, **asked, **{**who, "admitted_at_ms": NOW_MS - 1}).apply(conn)
            SettleHold("old", Usage(11, 0, 2, 60), "completed", NOW_MS, "stop").apply(conn)
            assert RollUpUsage(before_ms=NOW_MS, now_ms=NOW_MS).apply(conn) == 1
            for request_id in ("settled", "voided", "open"):
                OpenHold(request_id=request_id, epoch=epoch, **asked, **who).apply(conn)
            SettleHold("settled", Usage(11, 4, 5, 60), "completed", NOW_MS + 9, "stop").apply(conn)
            by = operations.Author("test", NOW_MS)
            for unit in ("usd", "compute_ms"):
                operations.set_budget(conn, "acme", 10**9, "day", operations.BudgetOwner(unit=unit), by=by)
            operations.set_budget(conn, "acme", 2, by=by)
            of_free = msgspec.structs.replace(attribution, deployment="a/free")
            OpenHold("bounded", of_free, None, 3, 2, epoch, NOW_MS, max_compute_ms=60).apply(conn)
            SettleHold("bounded", Usage(3, 1, 1, 9), "completed", NOW_MS + 9, "stop").apply(conn)
            operations.refund_request(conn, "settled", 3, reason="slow", by=operations.Author("test", NOW_MS + 9))
            VoidHold("voided", "failed", NOW_MS + 9).apply(conn)
            free = {**who, "attribution": of_free}
            RecordFree("free", usage=Usage(3, 0, 2, 1), status="completed", finished_at_ms=NOW_MS + 1, **free).apply(
                conn
            )
        with store.reading() as conn:
            return list(export_lines(conn, now_ms=NOW_MS))


def changed_numbers(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each export that differs from the good one in one amount, count or price; what is checked of it."""
    for index, line in enumerate(lines):
        row = json.loads(line)
        for column, value in row.items():
            if type(value) is int and column.endswith(("_nanousd", "_picousd", "_tokens")):
                # A single pico-dollar more can be rounded away.
                more = 1000 if column.endswith("_picousd") else 1
                bad = json.dumps({**row, column: value + more}, separators=(",", ":"))
                yield f"{row['record']}.{column}", [*lines[:index], bad, *lines[index + 1 :]]


def test_good_books_have_no_fault(lines):
    export = Export(lines)
    assert export.faults() == []
    assert [hold["request_id"] for hold in export.held()] == ["open"]
    assert export.drawn_nanousd("acme") == export.totals("acme").cost_nanousd
    assert export.totals("acme").requests == 5
    assert export.usage["settled"]["cost_nanousd"] == price(export.usage["settled"])


def test_every_changed_number_is_a_fault_without_checksums_too(lines, monkeypatch):
    tried = set()
    for what, bad in changed_numbers(lines):
        tried.add(what)
        assert Export(bad).faults(), what
    assert {"entry.amount_nanousd", "usage.cost_nanousd", "counter.held_nanousd", "hold.amount_nanousd"} <= tried

    monkeypatch.setattr("tests.e2e.refold.CHECKED", {})
    # What a grant was once, which tokens a voided, a free or a rolled up request used or held, and what a budget or an
    # alert said, only the checksum knows.
    unknown = {what for what, bad in changed_numbers(lines) if not Export(bad).faults()}
    assert unknown <= {
        "grant.amount_nanousd",
        *(f"usage_daily.{name}" for name in ("prompt_tokens", "cached_tokens", "completion_tokens")),
        *(f"usage.{name}" for name in ("prompt_tokens", "cached_tokens", "completion_tokens")),
        *(f"usage.{name}" for name in ("input_picousd", "output_picousd")),
        *(f"hold.{name}" for name in ("prompt_tokens", "max_completion_tokens", "input_picousd", "output_picousd")),
        *("alert.limit_nanousd", "alert.value_nanousd", "budget.amount_nanousd"),
    }


@pytest.mark.parametrize("record", ["entry", "account", "hold", "usage", "counter", "transaction"])
def test_a_row_that_is_missing_is_a_fault(lines, record):
    for index, line in enumerate(lines):
        if json.loads(line)["record"] == record and '"a/free"' not in line:
            assert Export([*lines[:index], *lines[index + 1 :]]).faults(), line


@pytest.mark.parametrize("record", list(CHECKED))
def test_every_covered_text_is_checked(lines, record):
    index = next(index for index, line in enumerate(lines) if json.loads(line)["record"] == record)
    row = json.loads(lines[index])
    row |= {"checksum": row["checksum"][::-1]}
    bad = json.dumps(row, separators=(",", ":"))
    assert Export([*lines[:index], bad, *lines[index + 1 :]]).faults()


def test_a_price_is_rounded_half_up_once():
    row = {"prompt_tokens": 1, "cached_tokens": 1, "completion_tokens": 0, "cached_input_picousd": None}
    row |= {"compute_ms": 5, "compute_picousd": None, "multiplier_ppm": None}
    assert price({**row, "input_picousd": 999, "output_picousd": 0}) == 0
    assert price({**row, "input_picousd": 1000, "output_picousd": 0}) == 1
    assert nanousd("1.000000001") == 10**9 + 1
