"""Rows with a checksum of their own columns, so that `inferd audit` can name a row that was changed.

checksum = the first 32 hex digits of the SHA-256 of the UTF-8 text of the compact JSON array
`[TABLE, FIXED_1, FIXED_2, ...]`: the table's name, then its fixed columns in the order given here
(text as JSON strings with non-ASCII characters as they are, integers as integers, NULL as null).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

CHECKSUM_HEX_DIGITS = 32


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One table's columns.

    Attributes:
        table: its name.
        key: how many of the first fixed columns name a row.
        fixed: columns that never change; the checksum covers them.
        mutable: columns that the schema's triggers let change; the audit refolds them instead.
    """

    table: str
    key: int
    fixed: tuple[str, ...]
    mutable: tuple[str, ...] = ()

    @property
    def insert_sql(self) -> str:
        columns = (*self.fixed, *self.mutable, "checksum")
        return f"INSERT INTO {self.table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


_PRICE = ("input_picousd", "cached_input_picousd", "output_picousd")
_CALLER = ("team", "project", "user", "key_id", "deployment", "service_tier")

FORMATS = {
    row_format.table: row_format
    for row_format in (
        RowFormat("transactions", 1, ("txn", "kind", "request_id", "actor", "reason", "at_ms")),
        RowFormat("entries", 2, ("txn", "line", "account", "amount_nanousd")),
        RowFormat(
            "grants",
            1,
            (
                *("grant_id", "team", "kind", "priority", "amount_nanousd", "expires_at_ms", "note", "origin", "txn"),
                *("created_at_ms", "created_by"),
            ),
            ("remaining_nanousd",),
        ),
        RowFormat(
            "holds",
            1,
            (
                *("request_id", "epoch", *_CALLER, *_PRICE, "prompt_tokens", "max_completion_tokens"),
                *("amount_nanousd", "admitted_at_ms"),
            ),
            ("state", "resolved_at_ms"),
        ),
        RowFormat(
            "usage",
            1,
            (
                *("request_id", *_CALLER, *_PRICE, "prompt_tokens", "cached_tokens", "completion_tokens"),
                *("compute_ms", "cost_nanousd", "status", "finish_reason", "admitted_at_ms", "finished_at_ms", "txn"),
            ),
        ),
        RowFormat(
            "keys",
            1,
            (
                *("key_id", "team", "project", "user", "label", "secret_sha256", "last4", "expires_at_ms"),
                *("created_at_ms", "created_by"),
            ),
            ("revoked_at_ms", "revoked_by"),
        ),
        RowFormat("idempotency", 3, ("team", "verb", "key", "body", "answer", "created_at_ms")),
    )
}
_INSERT_SQL = {table: row_format.insert_sql for table, row_format in FORMATS.items()}


def checksum(table: str, fixed_values: list[Any]) -> str:
    """The checksum of a row of `table`, given its fixed columns in order."""
    return hashlib.sha256(msgspec.json.encode([table, *fixed_values])).hexdigest()[:CHECKSUM_HEX_DIGITS]


def insert(conn: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> None:
    """Insert one row; `values` names every fixed and mutable column of the table."""
    row_format = FORMATS[table]
    assert len(values) == len(row_format.fixed) + len(row_format.mutable), f"{table}: every column, and no other"
    fixed = [values[column] for column in row_format.fixed]
    mutable = [values[column] for column in row_format.mutable]
    conn.execute(_INSERT_SQL[table], (*fixed, *mutable, checksum(table, fixed)))
