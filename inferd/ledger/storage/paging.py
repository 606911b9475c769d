"""Pages of a list: the admin API shows long lists in pages, the command line whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` rows that follow the row named `after`.

    Attributes:
        after: name, id or number of a row; None: from the first row.
        limit: -1: all rows, as in SQLite.
    """

    after: str | int | None = None
    limit: int = -1


WHOLE = Page()
