"""Ledger writers whose commits a test holds back or lets fail."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any

from inferd.ledger.storage.writer import LedgerWriter

Applies = Callable[[Sequence[str]], bool]


def resolves(names: Sequence[str]) -> bool:
    """Whether a group with commands of these classes ends a request."""
    return bool({"SettleHold", "VoidHold", "RecordFree"} & set(names))


class SlowWriter(LedgerWriter):
    """Stops before each commit that resolves a request, until `release`."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.reached = threading.Event()
        self.released = threading.Event()

    def release(self) -> None:
        self.released.set()

    def stop(self) -> None:
        self.release()
        super().stop()

    def _commit(self, group: Sequence[Any]) -> None:
        if resolves(commands(group)):
            self.reached.set()
            self.released.wait()
        super()._commit(group)


class FailingWriter(LedgerWriter):
    """The first `n_failures` commits of groups that `applies` chooses raise `error`."""

    def __init__(self, store: Any, error: sqlite3.Error, n_failures: int, applies: Applies = resolves) -> None:
        super().__init__(store)
        self._error = error
        self._n_failures = n_failures
        self._applies = applies

    def _commit(self, group: Sequence[Any]) -> None:
        if self._n_failures and self._applies(commands(group)):
            self._n_failures -= 1
            raise self._error
        super()._commit(group)


def commands(group: Sequence[Any]) -> list[str]:
    return [type(queued.command).__name__ for queued in group]
