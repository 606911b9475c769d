"""Checksums follow their documentation, so that others can compute them."""

from __future__ import annotations

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from inferd.ledger.storage.rows import FORMATS, checksum

VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text()


@given(st.lists(VALUES, max_size=4))
def test_checksum_is_the_sha256_of_compact_json(values):
    text = json.dumps(["entries", *values], separators=(",", ":"), ensure_ascii=False)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return  # lone surrogates are no text for SQLite either
    assert checksum("entries", values) == hashlib.sha256(data).hexdigest()[:32]


def test_every_column_of_a_checksummed_table_is_fixed_or_mutable(books):
    for table, row_format in FORMATS.items():
        columns = {name for _, name, *_ in books.conn.execute(f"PRAGMA table_info({table})")}
        assert columns == {*row_format.covered, *row_format.mutable, "checksum"}


def test_added_column_leaves_checksums_of_older_rows():
    older = [1, "grant", None, "x", None, 5]
    assert checksum("transactions", [*older, None]) == checksum("transactions", older)
    assert checksum("transactions", [*older, "2026-11"]) != checksum("transactions", older)
    assert checksum("transactions", [1, "grant", None, "x", None, None]) != checksum("transactions", older[:-1])
