"""An independent reading of `inferd ledger export`: recomputes every sum and price from single rows.

Written from the format's description in docs/billing.md; imports nothing of inferd, so that a mistake there is not
repeated here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil
from typing import Any

Row = dict[str, Any]
NANOUSD_PER_USD = 10**9
DAY_MS = 86_400_000
AMOUNTS = ("nanousd", "tokens", "compute_ms")
"""Names of what counters add up, each with a `posted_` and a `held_` column."""
_PRICE = "input_picousd, cached_input_picousd, output_picousd"
_WHO = "team, project, user, key_id, deployment, service_tier"
_COUNTS = "prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd"
CHECKED = {
    "transaction": ("transactions", "txn, kind, request_id, actor, reason, at_ms", "period"),
    "entry": ("entries", "txn, line, account, amount_nanousd", None),
    "grant": (
        "grants",
        "grant_id, team, kind, priority, amount_nanousd, expires_at_ms, note, origin, txn, created_at_ms, created_by",
        None,
    ),
    "hold": (
        "holds",
        f"request_id, epoch, {_WHO}, {_PRICE}, prompt_tokens, max_completion_tokens, amount_nanousd, admitted_at_ms",
        "postpaid, compute_picousd, multiplier_ppm, max_compute_ms, free",
    ),
    "usage": (
        "usage",
        f"request_id, {_WHO}, {_PRICE}, {_COUNTS}, status, finish_reason, admitted_at_ms, finished_at_ms, txn",
        "compute_picousd, multiplier_ppm",
    ),
    "rollup": ("rollups", "rollup, until_ms, requests, at_ms", None),
    "usage_daily": ("usage_daily", f"rollup, line, day_start_ms, {_WHO}, status, requests, {_COUNTS}", None),
    "refund": ("refunds", f"txn, request_id, {_WHO}, amount_nanousd, admitted_at_ms", None),
    "budget": ("budgets", "scope, period, authority, unit, team, amount, set_at_ms, set_by", None),
    "alert": (
        "alerts",
        "alert_id, kind, team, scope, source, period, unit, threshold_percent, limit_amount, value_amount, at_ms",
        None,
    ),
}
"""Record -> its table, the columns that its checksum covers, then those it covers up to the last that is not null."""


@dataclass(frozen=True)
class Totals:
    """Sums of usage rows; cost in nano-USD."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_nanousd: int


class Export:
    """One exported ledger."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.rows: dict[str, list[Row]] = defaultdict(list)
        for line in lines:
            row = json.loads(line)
            self.rows[row.pop("record")].append(row)
        assert len(self.rows["ledger"]) == 1, "an export begins with one line about itself"
        self.holds: dict[str, Row] = {row["request_id"]: row for row in self.rows["hold"]}
        self.usage: dict[str, Row] = {row["request_id"]: row for row in self.rows["usage"]}
        self.entries: dict[int, list[Row]] = defaultdict(list)
        for entry in self.rows["entry"]:
            self.entries[entry["txn"]].append(entry)

    def totals(self, team: str) -> Totals:
        """What the usage rows of a team add up to, the daily ones included; before refunds."""
        rows = [row for row in (*self.rows["usage"], *self.rows["usage_daily"]) if row["team"] == team]
        return Totals(
            requests=sum(row.get("requests", 1) for row in rows),
            prompt_tokens=sum(row["prompt_tokens"] for row in rows),
            cached_tokens=sum(row["cached_tokens"] for row in rows),
            completion_tokens=sum(row["completion_tokens"] for row in rows),
            cost_nanousd=sum(row["cost_nanousd"] for row in rows),
        )

    def drawn_nanousd(self, team: str) -> int:
        """What settlements took from a team's credit, by the entries alone."""
        settlements = [row["txn"] for row in self.rows["transaction"] if row["kind"] == "settlement"]
        return -sum(
            entry["amount_nanousd"]
            for txn in settlements
            for entry in self.entries[txn]
            if entry["account"].startswith(f"team:{team}:credit:")
        )

    def held(self) -> list[Row]:
        return [row for row in self.rows["hold"] if row["state"] == "held"]

    def faults(self) -> list[str]:
        """Everything that does not add up."""
        return [
            *self._checksum_faults(),
            *self._money_faults(),
            *self._grant_faults(),
            *self._hold_faults(),
            *self._usage_faults(),
            *self._counter_faults(),
        ]

    def _checksum_faults(self) -> Iterator[str]:
        for record, (table, columns, added) in CHECKED.items():
            for row in self.rows[record]:
                values = [table, *(row[column] for column in columns.split(", "))]
                later = [row[column] for column in added.split(", ")] if added else []
                while later and later[-1] is None:
                    later.pop()
                values += later
                text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
                for column in ("amount", "limit", "value"):
                    # Repeats the amount that the checksum covers, if it is of money.
                    amount = row.get(f"{column}_amount", row.get(column))
                    if "unit" in row and row.get(f"{column}_nanousd") != (amount if row["unit"] == "usd" else None):
                        yield f"{record} {row} says two amounts"
                if hashlib.sha256(text.encode()).hexdigest()[:32] != row["checksum"]:
                    yield f"{record} {row} was changed"

    def _money_faults(self) -> Iterator[str]:
        known = {row["txn"] for row in self.rows["transaction"]}
        for txn, entries in self.entries.items():
            if txn not in known:
                yield f"entries of transaction {txn}, which does not exist"
            if sum(entry["amount_nanousd"] for entry in entries) != 0:
                yield f"transaction {txn} does not add up to zero"
        balances: Counter[str] = Counter()
        for entry in self.rows["entry"]:
            balances[entry["account"]] += entry["amount_nanousd"]
        stored = {row["account"]: row["balance_nanousd"] for row in self.rows["account"]}
        if stored != dict(balances):
            yield f"accounts say {stored}, entries {dict(balances)}"
        if sum(stored.values()) != 0:
            yield f"all balances together are {sum(stored.values())}"
        for account, balance in balances.items():
            if account.startswith("team:") and ":credit:" in account and balance < 0:
                yield f"{account} is overdrawn: {balance}"

    def _grant_faults(self) -> Iterator[str]:
        balances: Counter[str] = Counter()
        for entry in self.rows["entry"]:
            balances[entry["account"]] += entry["amount_nanousd"]
        for grant in self.rows["grant"]:
            account = f"team:{grant['team']}:credit:{grant['grant_id']}"
            if balances[account] != grant["remaining_nanousd"]:
                yield f"grant {grant['grant_id']} has {grant['remaining_nanousd']}, its entries {balances[account]}"

    def _hold_faults(self) -> Iterator[str]:
        for request_id, hold in self.holds.items():
            picousd = hold["input_picousd"] * hold["prompt_tokens"]
            picousd += hold["output_picousd"] * hold["max_completion_tokens"]
            picousd += (hold["compute_picousd"] or 0) * (hold["max_compute_ms"] or 0)
            worst = ceil(picousd * multiplier(hold) / 1000)
            if hold["amount_nanousd"] != worst:
                yield f"hold {request_id} is {hold['amount_nanousd']}, its worst case {worst}"
            row = self.usage.get(request_id)
            if (row is None) != (hold["state"] == "held"):
                yield f"hold {request_id} is {hold['state']}, its usage row is {row}"
            if row is not None and hold["state"] == "voided" and row["cost_nanousd"]:
                yield f"hold {request_id} was voided, and billed {row['cost_nanousd']}"
            if row is not None and row["cost_nanousd"] > hold["amount_nanousd"]:
                yield f"request {request_id} cost {row['cost_nanousd']}, above its hold"

    def _usage_faults(self) -> Iterator[str]:
        settled = {row["request_id"]: row["txn"] for row in self.rows["transaction"] if row["kind"] == "settlement"}
        if len(settled) != sum(row["kind"] == "settlement" for row in self.rows["transaction"]):
            yield "a request was settled twice"
        for request_id, row in self.usage.items():
            priced = row["input_picousd"] is not None
            hold = self.holds.get(request_id)
            if (hold is None and priced) or (hold is not None and priced != (hold["free"] is None)):
                yield f"request {request_id}: {'no hold' if priced else 'a hold for a free one'}"
            cost = price(row) if priced else 0
            if row["cost_nanousd"] != cost:
                yield f"request {request_id} cost {row['cost_nanousd']}, its tokens are worth {cost}"
            txn = settled.pop(request_id, None)
            if txn != row["txn"]:
                yield f"request {request_id} names transaction {row['txn']}, settled by {txn}"
            revenue = {entry["account"]: entry["amount_nanousd"] for entry in self.entries[txn or 0]}
            if revenue.get(f"revenue:{row['deployment']}", 0) != cost:
                yield f"request {request_id} cost {cost}, its entries are {revenue}"
            if row["status"] == "failed" and (cost or row["completion_tokens"]):
                yield f"request {request_id} failed and was billed"
        revenue_of: Counter[str] = Counter()
        for row in (*self.rows["usage"], *self.rows["usage_daily"]):
            revenue_of[f"revenue:{row['deployment']}"] += row["cost_nanousd"]
        for account in self.rows["account"]:
            name, balance = account["account"], account["balance_nanousd"]
            if name.startswith("revenue:") and balance != revenue_of.pop(name, 0):
                yield f"{name} is {balance}, which is not what its requests cost"
        if any(revenue_of.values()):
            yield f"no accounts for the revenue {revenue_of}"
        if settled and not self.rows["rollup"]:
            yield f"settlements without a usage row: {settled}"

    def _counter_faults(self) -> Iterator[str]:
        posted: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in AMOUNTS}
        held: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in AMOUNTS}
        first_days = {row["team"]: row["first_day_ms"] for row in self.rows["day_counting"]}
        for row, at_ms, amounts in self._used():
            keys = [*counters_of(row, at_ms)]
            if at_ms // DAY_MS * DAY_MS >= first_days.get(row["team"], at_ms + DAY_MS):
                keys += days_of(row, at_ms)
            for name, amount in zip(AMOUNTS, amounts, strict=True):
                for key in keys:
                    posted[name][key] += amount
        for hold in self.held():
            tokens = hold["prompt_tokens"] + hold["max_completion_tokens"]
            amounts = (hold["amount_nanousd"], tokens, hold["max_compute_ms"] or 0)
            for name, amount in zip(AMOUNTS, amounts, strict=True):
                for key in counters_of(hold, hold["admitted_at_ms"]):
                    held[name][key] += amount
        days = [{**row, "period": day_of(row["day_start_ms"])} for row in self.rows["day_counter"]]
        for row in (*self.rows["counter"], *days):
            key = (row["scope"], row["period"])
            for name in AMOUNTS:
                found = (row[f"posted_{name}"], row.get(f"held_{name}", 0))
                if found != (posted[name].pop(key, 0), 0 if row in days else held[name].pop(key, 0)):
                    yield f"counter {key} does not fit its requests: {row}"
        for name in AMOUNTS:
            if any(posted[name].values()) or any(held[name].values()):
                yield f"no counters of {name} for {dict(posted[name])} and {dict(held[name])}"

    def _used(self) -> Iterator[tuple[Row, int, tuple[int, int, int]]]:
        """(row, moment, amounts) of everything that counters add up."""
        for record, moment in (("usage", "admitted_at_ms"), ("usage_daily", "day_start_ms")):
            for row in self.rows[record]:
                tokens = row["prompt_tokens"] + row["completion_tokens"]
                yield row, row[moment], (row["cost_nanousd"], tokens, row["compute_ms"])
        for row in self.rows["refund"]:
            yield row, row["admitted_at_ms"], (-row["amount_nanousd"], 0, 0)


def day_of(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")


def days_of(row: Row, admitted_at_ms: int) -> Iterator[tuple[str, str]]:
    """(scope, day) of each counter of a day that a request admitted then counts in."""
    scopes = dict.fromkeys(scope for scope, _ in counters_of(row, admitted_at_ms))
    yield from ((scope, day_of(admitted_at_ms)) for scope in scopes)


def counters_of(row: Row, admitted_at_ms: int) -> Iterator[tuple[str, str]]:
    """(scope, period) of each counter that a request admitted then counts in."""
    moment = datetime.fromtimestamp(admitted_at_ms / 1000, UTC)
    month, team = moment.strftime("%Y-%m"), row["team"]
    yield from ((f"team:{team}", period) for period in (month, moment.strftime("%Y"), "lifetime"))
    yield f"project:{team}/{row['project']}", month
    yield f"key:{row['key_id']}", month
    if row["user"] is not None:
        yield f"user:{team}/{row['user']}", month


def price(row: Row) -> int:
    """Nano-USD of a usage row, by its own price snapshot: one sum, rounded half up once."""
    cached = row["cached_input_picousd"]
    cached_picousd = Fraction(row["input_picousd"], 2) if cached is None else Fraction(cached)
    picousd = (
        row["input_picousd"] * (row["prompt_tokens"] - row["cached_tokens"])
        + cached_picousd * row["cached_tokens"]
        + row["output_picousd"] * row["completion_tokens"]
        + (row["compute_picousd"] or 0) * row["compute_ms"]
    )
    return int(picousd * multiplier(row) / 1000 + Fraction(1, 2))


def multiplier(row: Row) -> Fraction:
    """Of the service tier."""
    return Fraction(1) if row["multiplier_ppm"] is None else Fraction(row["multiplier_ppm"], 10**6)


def nanousd(usd: str) -> int:
    """`"0.000012300"` -> 12300."""
    amount = Fraction(usd) * NANOUSD_PER_USD
    assert amount.denominator == 1, "nine decimals at most"
    return int(amount)
