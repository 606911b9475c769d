"""`after` and `limit` of a list, and the answer that says how it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from inferd.ledger.storage.paging import Page
from inferd.server.admin.call import answer
from inferd.server.query import Query

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Paging:
    """What a caller asked for: at most `limit` items after one."""

    after: str | int | None
    limit: int

    @classmethod
    def of(cls, request: Request, *, numbered: bool = False) -> Paging:
        """Raises InvalidRequestError. `numbered`: items are named by numbers."""
        query = Query(request)
        after = query.integer("after") if numbered else query.text("after")
        limit = query.integer("limit", 1, MAX_LIMIT) or DEFAULT_LIMIT
        query.finish()
        return cls(after, limit)

    @property
    def page(self) -> Page:
        """One more than is shown, which tells whether there is more."""
        return Page(self.after, self.limit + 1)

    def answer(
        self,
        noun: str,
        found: Sequence[T],
        name: Callable[[T], str | int],
        record: Callable[[T], object] = lambda item: item,
    ) -> Response:
        """The items under `noun`, `has_more`, and `next`: what `after` is to be in the next call, null at the end.

        Args:
            found: what `page` brought.
            name: of an item, as `after` has it.
        """
        shown, has_more = found[: self.limit], len(found) > self.limit
        following = name(shown[-1]) if has_more else None
        return answer({noun: [record(each) for each in shown], "has_more": has_more, "next": following})
