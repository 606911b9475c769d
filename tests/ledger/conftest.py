"""A ledger for each test: in memory (`books`), where one connection is enough, or in a folder (`store`, `served`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from tests.ledger.books import Books, memory_books


@pytest.fixture
def books() -> Iterator[Books]:
    """In memory; what the audit says of it is checked at the end of the test too."""
    books = memory_books()
    with closing(books.conn):
        yield books
        books.assert_clean()


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[DataLock]:
    with DataLock(tmp_path / "data") as lock:
        yield lock


@pytest.fixture
def store(tmp_path: Path, lock: DataLock) -> Store:
    """In a folder, whose lock is held as a server holds it."""
    return Store(tmp_path / "data", lock)


@pytest.fixture
def served(store: Store) -> Iterator[Books]:
    """The books of `store`, on a writing connection of its own."""
    with closing(store.connect_writer()) as conn:
        yield Books(conn)
