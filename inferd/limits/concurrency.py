"""Requests under way at once, per project and per user (BILLING R10)."""

from __future__ import annotations

from collections.abc import Sequence

Share = tuple[str, int | None]
"""A scope, such as `project:acme/inference`, and its limit; None: no limit."""


class Concurrency:
    """Counts by scope; a scope without requests takes no memory."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, scope: str) -> int:
        return self._counts.get(scope, 0)

    def enter(self, shares: Sequence[Share]) -> int | None:
        """Count one request more in every scope; the index of the first that is full, and then in none of them."""
        counts = self._counts
        for index, (scope, limit) in enumerate(shares):
            if limit is not None and counts.get(scope, 0) >= limit:
                return index
        for scope, _ in shares:
            counts[scope] = counts.get(scope, 0) + 1
        return None

    def leave(self, shares: Sequence[Share]) -> None:
        """One request of these scopes has ended."""
        for scope, _ in shares:
            count = self._counts[scope] - 1
            if count:
                self._counts[scope] = count
            else:
                del self._counts[scope]
