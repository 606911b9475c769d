"""Schema of the ledger's file: creation from schema.sql, migration of older files, comparison."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from inferd.ledger.storage.schema_12 import convert_schema_12
from inferd.ledger.storage.schema_15 import convert_schema_15

SCHEMA_VERSION = 16
"""The version that schema.sql describes."""
SCHEMA_SQL = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
# A comment, white space (both are dropped), a string, a quoted name, a word, or one other character.
_SQL_TOKEN = re.compile(r"""--[^\n]*|/\*.*?\*/|\s+|('(?:[^']|'')*'|"(?:[^"]|"")*"|\w+|[^\w\s])""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Migration:
    """A change of the schema, carried out in one transaction.

    Attributes:
        target: the version of the file afterwards.
        apply: must not depend on schema.sql or on the formats of rows.py, which describe the newest version.
    """

    target: int
    apply: Callable[[Database], object]


def _create(db: Database) -> None:
    db.executescript(SCHEMA_SQL)


MIGRATIONS: Mapping[int, Migration] = {
    0: Migration(SCHEMA_VERSION, _create),
    12: Migration(15, convert_schema_12),
    15: Migration(16, convert_schema_15),
}
"""Version of a file -> its next migration. Version 0 is an empty file."""


def schema_version(conn: sqlite3.Connection) -> int:
    """Return the schema version of the file; 0 for an empty one."""
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    return version


def version_fault(version: int) -> str | None:
    """Return why a ledger of this schema version cannot be opened, and what to do; None if it can."""
    if version == SCHEMA_VERSION or version in MIGRATIONS:
        return None
    if version > SCHEMA_VERSION:
        return f"written by a newer inferd (schema {version}, this one knows {SCHEMA_VERSION}); upgrade inferd"
    opened = " and ".join(str(known) for known in sorted({*MIGRATIONS, SCHEMA_VERSION} - {0}))
    return (
        f"its schema is {version}, and this inferd opens schemas {opened}; "
        "open it once with an older inferd, which brings it to one of them"
    )


def migrate(conn: sqlite3.Connection, migrations: Mapping[int, Migration] = MIGRATIONS) -> None:
    """Create the schema in an empty file, or bring an older file to the newest version.

    Each migration and its version number are one transaction. The caller holds the data folder's lock and has checked
    `version_fault`.
    """
    db = Database(conn, execute_plugins=False)
    while migration := migrations.get(schema_version(conn)):
        with db.atomic():
            migration.apply(db)
            conn.execute(f"PRAGMA user_version = {migration.target}")


def expected_objects() -> dict[tuple[str, str], str]:
    """Return (type, name) -> normalised SQL of everything in schema.sql."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        migrate(conn)
        return objects(conn)


def objects(conn: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return (type, name) -> normalised SQL of the tables, indexes, views and triggers of a file.

    Normalised: without comments and line breaks, which differ between a new file and a migrated one.
    """
    rows = conn.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {(kind, name): " ".join(filter(None, _SQL_TOKEN.findall(sql))) for kind, name, sql in rows}
