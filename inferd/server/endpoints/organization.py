"""Usage and costs of the caller's team (of all teams for admins), and the state of its key.

`GET /v1/organization/usage/completions`, `/v1/organization/costs` and `/v1/key`. Usage and costs read the ledger on
connections of their own, so no request waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inferd.errors import InvalidRequestError
from inferd.instants import wall_clock_ms
from inferd.ledger.identity import Caller
from inferd.ledger.reports import BucketSums, GroupField, Selection, key_status, sum_by_bucket
from inferd.server.auth import authenticate_request, require_scope
from inferd.server.query import Query
from inferd.server.services import services_of
from inferd.wire.openai.usage_pages import Bucket, CompletionsResult, CostsResult, Page, Result, amount_of, encode_page

_SECONDS = {"1m": 60, "1h": 3600, "1d": 86_400}
# bucket_width -> (default, maximum) buckets of a page
_LIMITS = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
_COSTS_LIMITS = {"1d": (7, 180)}
_PAGE_PREFIX = "page_"
_USAGE_FIELDS = tuple(name for name in get_args(GroupField) if name != "line_item")
_COSTS_FIELDS = ("project_id", "line_item", "api_key_id")


@dataclass(frozen=True, slots=True)
class _Range:
    """Buckets of one page, in Unix seconds: at most `limit` in [start, end)."""

    start: int
    end: int
    width: int
    limit: int

    def bounds(self) -> list[tuple[int, int]]:
        """Return [start, end) of each bucket. Buckets lie at multiples of the width; the first and last may be cut."""
        found: list[tuple[int, int]] = []
        start = self.start
        while start < self.end and len(found) < self.limit:
            end = min((start // self.width + 1) * self.width, self.end)
            found.append((start, end))
            start = end
        return found


async def usage_completions(request: Request) -> Response:
    """Answer with tokens and requests."""
    caller = _caller(request)
    query = Query(request)
    span = _range(query, _LIMITS)
    group_by = query.choices("group_by", _USAGE_FIELDS)
    users, models, batch = query.texts("user_ids"), query.texts("models"), query.flag("batch")
    selection = _selection(query, caller, span, users=users, models=models, batch=batch)
    query.finish()
    return await _answer(request, caller, span, selection, group_by, _completions_result)


async def costs(request: Request) -> Response:
    """Answer with USD, less refunds."""
    caller = _caller(request)
    query = Query(request)
    span = _range(query, _COSTS_LIMITS)
    group_by = query.choices("group_by", _COSTS_FIELDS)
    selection = _selection(query, caller, span)
    query.finish()
    return await _answer(request, caller, span, selection, group_by, _costs_result)


async def get_key(request: Request) -> Response:
    """Answer with the state of the caller's own key, whatever its scopes."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    return JSONResponse(await services.ledger.read(lambda conn: key_status(conn, caller, now_ms=wall_clock_ms())))


def _caller(request: Request) -> Caller:
    """Return the caller. Raises AuthenticationError, PermissionDeniedError."""
    caller = authenticate_request(request, services_of(request).authenticator)
    require_scope(caller, "usage")
    return caller


def _range(query: Query, limits: dict[str, tuple[int, int]]) -> _Range:
    """Return the buckets of the page that was asked for. Raises InvalidRequestError."""
    width = query.choice("bucket_width", tuple(limits)) or "1d"
    default, maximum = limits[width]
    start, limit = query.integer("start_time"), query.integer("limit", 1, maximum) or default
    end = query.integer("end_time")
    page = query.text("page")
    if start is None:
        raise InvalidRequestError(
            "The query parameter 'start_time' is missing: Unix seconds.",
            param="start_time",
            code="missing_required_parameter",
        )
    if end is None:
        # The current bucket is shown whole.
        end = max((wall_clock_ms() // 1000 // _SECONDS[width] + 1) * _SECONDS[width], start + 1)
    if end <= start:
        raise InvalidRequestError("'end_time' must lie after 'start_time'.", param="end_time", code="invalid_value")
    if page is not None:
        number = page.removeprefix(_PAGE_PREFIX)
        if not (page.startswith(_PAGE_PREFIX) and number.isascii() and number.isdecimal() and len(number) < 20):
            raise InvalidRequestError("'page' must be the next_page of a page.", param="page", code="invalid_value")
        start = min(max(start, int(number)), end)
    return _Range(start, end, _SECONDS[width], limit)


def _selection(
    query: Query,
    caller: Caller,
    span: _Range,
    *,
    users: Sequence[str] = (),
    models: Sequence[str] = (),
    batch: bool | None = None,
) -> Selection:
    """Return the requests to count. Keys of a team see only their team, whatever filters they send."""
    bounds = span.bounds()
    return Selection(
        since_ms=span.start * 1000,
        until_ms=(bounds[-1][1] if bounds else span.start) * 1000,
        team=None if caller.has_scope("admin") else caller.team,
        projects=query.texts("project_ids"),
        users=users,
        keys=query.texts("api_key_ids"),
        models=models,
        batch=batch,
    )


async def _answer(
    request: Request,
    caller: Caller,
    span: _Range,
    selection: Selection,
    group_by: Sequence[str],
    result: Callable[[BucketSums], Result | None],
) -> Response:
    fields = cast("Sequence[GroupField]", group_by)
    sums = await services_of(request).ledger.report(
        caller.team, lambda conn: sum_by_bucket(conn, selection, span.width * 1000, fields)
    )
    by_start: dict[int, list[Result]] = {}
    for each in sums:
        shown = result(each)
        if shown is not None:
            by_start.setdefault(each.start_ms // 1000, []).append(shown)
    bounds = span.bounds()
    buckets = [
        Bucket(start_time=start, end_time=end, results=by_start.get(start // span.width * span.width, []))
        for start, end in bounds
    ]
    next_start = bounds[-1][1] if bounds else span.end
    has_more = next_start < span.end
    page = Page(data=buckets, has_more=has_more, next_page=f"{_PAGE_PREFIX}{next_start}" if has_more else None)
    return Response(encode_page(page), media_type="application/json")


def _completions_result(sums: BucketSums) -> CompletionsResult | None:
    # A refund of a request that was rolled up into the first bucket of its day.
    if sums.requests == 0:
        return None
    return CompletionsResult(
        input_tokens=sums.prompt_tokens,
        output_tokens=sums.completion_tokens,
        input_cached_tokens=sums.cached_tokens,
        num_model_requests=sums.requests,
        **sums.groups,
    )


def _costs_result(sums: BucketSums) -> CostsResult | None:
    # A bill has no line for free usage.
    if sums.cost_nanousd == 0:
        return None
    return CostsResult(amount=amount_of(sums.cost_nanousd - sums.refunded_nanousd), **sums.groups)
