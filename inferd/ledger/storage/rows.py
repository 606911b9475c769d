"""Rows with a checksum of their own columns, so that `inferd audit` names a row that was changed.

checksum = the first 32 hex digits of the SHA-256 of the UTF-8 text of the compact JSON array
`[TABLE, FIXED_1, FIXED_2, ...]`: the table's name, then its fixed columns in the order given here
(text as JSON strings with non-ASCII characters as they are, integers as integers, NULL as null), then the columns
that a later schema has added, up to the last one that is not NULL: so older rows keep their checksum.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec

CHECKSUM_HEX_DIGITS = 32


@dataclass(frozen=True, slots=True)
class RowFormat:
    """Columns of one table.

    Attributes:
        table: name of the table.
        key: number of fixed columns, from the first, that name a row.
        fixed: columns that never change; the checksum covers them.
        mutable: columns that the schema's triggers let change; the audit recomputes them instead.
        added: fixed columns of a later schema, oldest first; covered up to the last that is not NULL.
    """

    table: str
    key: int
    fixed: tuple[str, ...]
    mutable: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def covered(self) -> tuple[str, ...]:
        """The columns of the checksum, in its order."""
        return (*self.fixed, *self.added)

    @property
    def insert_sql(self) -> str:
        columns = (*self.covered, *self.mutable, "checksum")
        return f"INSERT INTO {self.table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _format(table: str, key: int, fixed: str, *, mutable: str = "", added: str = "") -> RowFormat:
    return RowFormat(table, key, tuple(fixed.split()), tuple(mutable.split()), tuple(added.split()))


_PRICE = "input_picousd cached_input_picousd output_picousd"
_ATTRIBUTION = "team project user key_id deployment service_tier"
_FORMATS = (
    _format("transactions", 1, "txn kind request_id actor reason at_ms", added="period"),
    _format("entries", 2, "txn line account amount_nanousd"),
    _format(
        "grants",
        1,
        "grant_id team kind priority amount_nanousd expires_at_ms note origin txn created_at_ms created_by",
        mutable="remaining_nanousd used_up",
    ),
    _format(
        "holds",
        1,
        f"request_id epoch {_ATTRIBUTION} {_PRICE} prompt_tokens max_completion_tokens amount_nanousd admitted_at_ms",
        mutable="state resolved_at_ms",
        added="postpaid compute_picousd multiplier_ppm max_compute_ms free",
    ),
    _format(
        "usage",
        1,
        f"request_id {_ATTRIBUTION} {_PRICE} prompt_tokens cached_tokens completion_tokens compute_ms cost_nanousd "
        "status finish_reason admitted_at_ms finished_at_ms txn",
        added="compute_picousd multiplier_ppm",
    ),
    _format(
        "keys",
        1,
        "key_id team project user label secret_sha256 last4 expires_at_ms created_at_ms created_by scopes models",
        mutable="revoked_at_ms revoked_by",
        added="trusted",
    ),
    _format("log", 1, "seq at_ms actor action team details"),
    _format("billing", 1, "team overage payment_method earned_tier changed_at_ms changed_by", added="team_overage"),
    _format("budgets", 4, "scope period authority unit team amount set_at_ms set_by"),
    _format("cap_adjustments", 1, "adjustment_id team from_ms until_ms amount_nanousd reason actor at_ms txn"),
    _format("catalogs", 1, "seq catalog actor at_ms"),
    _format("concurrency", 1, "scope team max_requests set_at_ms set_by"),
    _format("refunds", 1, f"txn request_id {_ATTRIBUTION} amount_nanousd admitted_at_ms"),
    _format("voids", 1, "grant_id reason actor at_ms"),
    _format(
        "alerts",
        1,
        "alert_id kind team scope source period unit threshold_percent limit_amount value_amount at_ms",
    ),
    _format("idempotency", 3, "team verb key body answer created_at_ms"),
    _format(
        "files",
        1,
        "file_id team project user key_id filename purpose num_bytes created_at_ms",
        mutable="expires_at_ms deleted_at_ms",
    ),
    _format(
        "batches",
        1,
        "batch_id team project user key_id endpoint input_file_id metadata created_at_ms expires_at_ms",
        mutable="status num_total num_completed num_failed queued_tokens output_file_id error_file_id "
        "in_progress_at_ms finalizing_at_ms completed_at_ms failed_at_ms expired_at_ms cancelling_at_ms "
        "cancelled_at_ms prompt_tokens cached_tokens completion_tokens reasoning_tokens cost_nanousd",
        added="output_kept_ms",
    ),
    _format("rollups", 1, "rollup until_ms requests at_ms"),
    _format(
        "usage_daily",
        2,
        f"rollup line day_start_ms {_ATTRIBUTION} status requests prompt_tokens cached_tokens completion_tokens "
        "compute_ms cost_nanousd",
    ),
)
FORMATS = {row_format.table: row_format for row_format in _FORMATS}
_INSERT_SQL = {table: row_format.insert_sql for table, row_format in FORMATS.items()}
_FIXED = {table: itemgetter(*row_format.fixed) for table, row_format in FORMATS.items()}
_NUM_FIXED = {table: len(row_format.fixed) for table, row_format in FORMATS.items()}
_encode = msgspec.json.Encoder().encode


def checksum(table: str, values: Sequence[Any]) -> str:
    """Return the checksum of a row of `table`, given its `covered` columns in order."""
    num_covered, num_fixed = len(values), _NUM_FIXED[table]
    while num_covered > num_fixed and values[num_covered - 1] is None:
        num_covered -= 1
    return hashlib.sha256(_encode((table, *values[:num_covered]))).hexdigest()[:CHECKSUM_HEX_DIGITS]


def insert(conn: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> None:
    """Insert one row. `values` has every fixed and mutable column; added columns may be left out (NULL)."""
    row_format = FORMATS[table]
    required = len(row_format.fixed) + len(row_format.mutable)
    assert required <= len(values) <= required + len(row_format.added), f"{table}: every column, and no other"
    covered = _FIXED[table](values)
    if row_format.added:
        covered += tuple(map(values.get, row_format.added))
    insert_covered(conn, table, covered, tuple(map(values.__getitem__, row_format.mutable)))


def insert_all_covered(conn: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert several rows as `insert_covered` does, of a table without mutable columns."""
    conn.executemany(_INSERT_SQL[table], [(*covered, checksum(table, covered)) for covered in rows])


def insert_covered(
    conn: sqlite3.Connection, table: str, covered: tuple[Any, ...], mutable: tuple[Any, ...] = ()
) -> None:
    """Insert one row without looking its columns up by name, for rows of every request.

    `covered` is in the order of `RowFormat.covered`, complete.
    """
    conn.execute(_INSERT_SQL[table], (*covered, *mutable, checksum(table, covered)))
