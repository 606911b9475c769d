"""An export can be refolded by somebody who has only the file and docs/billing.md: nothing of inferd is used here to
check it, but to make it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil, floor

from inferd.attribution import Attribution
from inferd.ledger.reports.export import export_lines
from inferd.ledger.requests.usage import RecordFree
from inferd.ledger.storage.schema import SCHEMA_VERSION
from inferd.price import Price
from inferd.usage import Usage
from tests.ledger.every_record import move_everything

# docs/billing.md, "Checksums"
PRICE = ["input_picousd", "cached_input_picousd", "output_picousd"]
CALLER = ["team", "project", "user", "key_id", "deployment", "service_tier"]
COUNTS = ["prompt_tokens", "cached_tokens", "completion_tokens", "compute_ms"]
CREATED = ["created_at_ms", "created_by"]
CHECKSUMMED = {
    "transaction": ("transactions", ["txn", "kind", "request_id", "actor", "reason", "at_ms"]),
    "entry": ("entries", ["txn", "line", "account", "amount_nanousd"]),
    "grant": (
        "grants",
        [
            *("grant_id", "team", "kind", "priority", "amount_nanousd", "expires_at_ms", "note", "origin", "txn"),
            *CREATED,
        ],
    ),
    "hold": (
        "holds",
        [
            *("request_id", "epoch", *CALLER, *PRICE, "prompt_tokens", "max_completion_tokens", "amount_nanousd"),
            "admitted_at_ms",
        ],
    ),
    "log": ("log", ["seq", "at_ms", "actor", "action", "team", "details"]),
    "usage": (
        "usage",
        [
            *("request_id", *CALLER, *PRICE, *COUNTS, "cost_nanousd", "status", "finish_reason", "admitted_at_ms"),
            *("finished_at_ms", "txn"),
        ],
    ),
}

# Up to the last that is not null.
LATER = {
    "transaction": ["period"],
    "hold": ["postpaid", "compute_picousd", "multiplier_ppm", "max_compute_ms"],
    "usage": ["compute_picousd", "multiplier_ppm"],
}


def check(records):
    """Refold an export; raises AssertionError where it does not add up."""
    by_record = defaultdict(list)
    for record in records:
        by_record[record["record"]].append(record)
    for name, (table, columns) in CHECKSUMMED.items():
        for row in by_record[name]:
            later = [row[c] for c in LATER.get(name, [])]
            while later and later[-1] is None:
                later.pop()
            text = json.dumps([table, *(row[c] for c in columns), *later], separators=(",", ":"), ensure_ascii=False)
            assert row["checksum"] == hashlib.sha256(text.encode()).hexdigest()[:32]

    balances, transactions = Counter(), Counter()
    for entry in by_record["entry"]:
        balances[entry["account"]] += entry["amount_nanousd"]
        transactions[entry["txn"]] += entry["amount_nanousd"]
    assert set(transactions.values()) <= {0}
    assert set(transactions) == {row["txn"] for row in by_record["transaction"]}
    assert balances == {row["account"]: row["balance_nanousd"] for row in by_record["account"]}
    for grant in by_record["grant"]:
        assert grant["remaining_nanousd"] == balances[f"team:{grant['team']}:credit:{grant['grant_id']}"]

    usage = {row["request_id"]: row for row in by_record["usage"]}
    counters = defaultdict(lambda: [0, 0])
    for hold in by_record["hold"]:
        tokens = hold["prompt_tokens"] * hold["input_picousd"] + hold["max_completion_tokens"] * hold["output_picousd"]
        time = (hold["max_compute_ms"] or 0) * (hold["compute_picousd"] or 0)
        assert hold["amount_nanousd"] == ceil((tokens + time) * multiplier(hold) / 1000)
        assert (hold["state"] == "held") == (hold["request_id"] not in usage)
        row = usage.get(hold["request_id"], {"cost_nanousd": 0})
        assert row["cost_nanousd"] <= hold["amount_nanousd"]
        held = hold["amount_nanousd"] if hold["state"] == "held" else 0
        move(counters, hold, row["cost_nanousd"], held)
    for refund in by_record["refund"]:
        move(counters, refund, -refund["amount_nanousd"], 0)
    exported = {(row["scope"], row["period"]): sums_of(row) for row in by_record["counter"]}
    assert not_zero(exported) == not_zero(counters)

    statements = defaultdict(Counter)
    transaction = {row["txn"]: row for row in by_record["transaction"]}
    for entry in by_record["entry"]:
        if entry["account"].endswith(":receivable"):
            kind, period = transaction[entry["txn"]]["kind"], transaction[entry["txn"]]["period"]
            statements[entry["account"].split(":")[1], period][kind] += abs(entry["amount_nanousd"])
    for row in by_record["statement"]:
        amounts = statements.pop((row["team"], row["period"]))
        assert amounts["settlement"] == row["charged_nanousd"]
        assert amounts["refund"] == row["refunded_nanousd"]
        assert amounts["payment"] == row["paid_nanousd"]
    assert not statements

    revenue = Counter()
    for row in usage.values():
        revenue[f"revenue:{row['deployment']}"] += row["cost_nanousd"]
        if row["input_picousd"] is None:
            assert row["cost_nanousd"] == 0
            continue
        cached = row["cached_input_picousd"]
        cached = Fraction(row["input_picousd"], 2) if cached is None else cached
        picousd = (
            (row["prompt_tokens"] - row["cached_tokens"]) * row["input_picousd"]
            + row["cached_tokens"] * cached
            + row["completion_tokens"] * row["output_picousd"]
            + row["compute_ms"] * (row["compute_picousd"] or 0)
        )
        assert row["cost_nanousd"] == floor(picousd * multiplier(row) / 1000 + Fraction(1, 2))
    assert +revenue == {account: amount for account, amount in balances.items() if account.startswith("revenue:")}
    return by_record


def sums_of(counter):
    return [counter["posted_nanousd"], counter["held_nanousd"]]


def not_zero(counters):
    return {cell: sums for cell, sums in counters.items() if any(sums)}


def multiplier(row):
    return Fraction(1) if row["multiplier_ppm"] is None else Fraction(row["multiplier_ppm"], 10**6)


def move(counters, row, posted, held):
    """Add to every counter of a request."""
    month = f"{datetime.fromtimestamp(row['admitted_at_ms'] // 1000, UTC):%Y-%m}"
    cells = [(f"team:{row['team']}", period) for period in (month, month[:4], "lifetime")]
    cells += [(f"project:{row['team']}/{row['project']}", month), (f"key:{row['key_id']}", month)]
    cells += [(f"user:{row['team']}/{row['user']}", month)] if row["user"] else []
    for cell in cells:
        counters[cell][0] += posted
        counters[cell][1] += held


def use(books):
    books.grant(5_000, "promotional", expires_at_ms=books.now_ms + 1_000, note="für Ada")
    books.grant(10_000)
    for number in range(6):
        request_id = books.hold(10 + number, 20, price=Price(3_333, 7_777, None if number % 2 else 1_111))
        books.settle(request_id, usage=Usage(10, number, number * 3, 5))
    books.now_ms += 1_000
    books.apply(books.void(books.hold(1, 1)))
    books.hold(5, 5)
    books.apply(
        RecordFree(
            "free",
            Attribution("acme", "inference", None, books.key.id, "f", "default"),
            Usage(1, 0, 2, 3),
            "completed",
            1,
            2,
        )
    )


def test_an_export_refolds_to_what_it_says(books):
    use(books)
    records = [json.loads(line) for line in export_lines(books.conn, now_ms=77)]
    assert records[0] == {"record": "ledger", "schema": SCHEMA_VERSION, "exported_at_ms": 77}
    by_record = check(records)
    assert {name: len(rows) for name, rows in by_record.items() if rows} == {
        **{"ledger": 1, "team": 1, "project": 1, "key": 1, "epoch": 1, "grant": 2, "hold": 8, "usage": 8},
        **{"transaction": 9, "entry": 18, "account": 6, "counter": 9, "billing": 1, "log": 4},
    }


def test_an_export_of_every_movement_of_money_refolds(books):
    """R19"""
    move_everything(books)
    by_record = check([json.loads(line) for line in export_lines(books.conn, now_ms=77)])
    assert {row["kind"] for row in by_record["transaction"]} == {
        *("grant", "settlement", "refund", "payment", "withdrawal", "void"),
    }


def test_an_export_tells_no_secret(books):
    """R21"""
    text = "\n".join(export_lines(books.conn, now_ms=1))
    assert books.key.id in text
    assert books.key.key not in text
    assert "sha256" not in text


def test_a_line_is_one_line_of_utf_8(books):
    books.grant(5, note="für Ada")
    lines = list(export_lines(books.conn, now_ms=1))
    assert all("\n" not in line for line in lines)
    assert any("für Ada" in line for line in lines)
