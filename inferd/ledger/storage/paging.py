"""A part of a list: the admin API gives long ones in pages, the command line whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` rows, beginning after the one that `after` names (a name, an id or a number); None: the first.

    `limit` -1, as SQLite has it: all of them.
    """

    after: str | int | None = None
    limit: int = -1


WHOLE = Page()
