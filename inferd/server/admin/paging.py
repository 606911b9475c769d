"""Pages of lists: the parameters `after` and `limit`, and the answer with the next `after`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from inferd.ledger import Page
from inferd.server.admin.call import answer
from inferd.server.query import Query

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Paging:
    """Page that a caller asked for: at most `limit` items after `after`."""

    after: str | int | None
    limit: int

    @classmethod
    def of(cls, request: Request, *, numbered: bool = False) -> Paging:
        """Return the page of a request. Raises InvalidRequestError.

        Args:
            numbered: items are named by numbers.
        """
        query = Query(request)
        after = query.integer("after") if numbered else query.text("after")
        limit = query.integer("limit", 1, MAX_LIMIT) or DEFAULT_LIMIT
        query.finish()
        return cls(after, limit)

    @property
    def page(self) -> Page:
        """The page to look up: one item more than is shown, which tells whether there is a next page."""
        return Page(self.after, self.limit + 1)

    def answer(
        self,
        noun: str,
        found: Sequence[T],
        name: Callable[[T], str | int],
        record: Callable[[T], object] = lambda item: item,
    ) -> Response:
        """Return the items under `noun`, `has_more`, and `next`: the `after` of the next call, null at the end.

        Args:
            found: the items of `page`.
            name: returns the name of an item, as in `after`.
            record: returns the JSON of an item.
        """
        shown, has_more = found[: self.limit], len(found) > self.limit
        following = name(shown[-1]) if has_more else None
        return answer({noun: [record(each) for each in shown], "has_more": has_more, "next": following})
