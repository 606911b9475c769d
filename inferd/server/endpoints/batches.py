"""`/v1/batches`. The keys of a batch's team and project see the batch."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.batches import BatchRecord, BatchTotals, find_batch
from inferd.money import format_usd
from inferd.server.api_call import api_call
from inferd.server.endpoints.files import answer, caller_of
from inferd.server.query import Query
from inferd.server.rate_limit_headers import limit_headers
from inferd.server.services import services_of
from inferd.serving.batches.batch_validation import errors_name
from inferd.serving.file_store import FileStore
from inferd.usage import Usage
from inferd.wire.openai.batches import (
    BatchErrors,
    BatchObject,
    BatchUsage,
    CachedTokens,
    ReasoningTokens,
    RequestCounts,
    batch_list,
    parse_create_batch,
)

LIST_LIMIT, LIST_LIMIT_MAX = 20, 100
_ERRORS = msgspec.json.Decoder(BatchErrors)


async def create_batch(request: Request) -> Response:
    """Create a batch, which counts toward the team's requests per minute; its lines do not."""
    services = services_of(request)
    async with api_call(request) as call:
        wanted, caller = parse_create_batch(call.body), call.caller
        new = operations.NewBatch(wanted.endpoint, wanted.input_file_id, wanted.metadata, wanted.output_kept_ms)
        author = operations.Author(f"key:{caller.key_id}", wall_clock_ms())
        batch = await services.ledger.change(lambda conn: operations.create_batch(conn, caller, new, by=author))
        call.ticket.settle(Usage())
    services.batches.wake()
    return answer(await _batch_object(services.files, batch), limit_headers(request))


async def list_batches(request: Request) -> Response:
    """List batches, newest first."""
    services, caller = caller_of(request)
    query = Query(request)
    after, limit = query.text("after"), query.integer("limit", 1, LIST_LIMIT_MAX) or LIST_LIMIT
    query.finish()
    batches = await services.ledger.read(
        lambda conn: operations.list_batches(conn, caller.team, caller.project, after=after, limit=limit + 1)
    )
    shown = [await _batch_object(services.files, batch) for batch in batches[:limit]]
    return answer(batch_list(shown, has_more=len(batches) > limit))


async def get_batch(request: Request) -> Response:
    services, caller = caller_of(request)
    batch_id = request.path_params["batch_id"]
    batch = await services.ledger.read(lambda conn: find_batch(conn, batch_id, caller.team, caller.project))
    return answer(await _batch_object(services.files, batch))


async def cancel_batch(request: Request) -> Response:
    services, caller = caller_of(request)
    batch_id = request.path_params["batch_id"]
    batch = await services.ledger.change(
        lambda conn: operations.cancel_batch(
            conn, batch_id, caller.team, caller.project, by=operations.Author(f"key:{caller.key_id}", wall_clock_ms())
        )
    )
    services.batches.wake()
    return answer(await _batch_object(services.files, batch))


async def _batch_object(files: FileStore, batch: BatchRecord) -> BatchObject:
    errors = None
    path = files.path(errors_name(batch.batch_id))
    if path.exists():
        errors = _ERRORS.decode(await asyncio.to_thread(path.read_bytes))
    return BatchObject(
        id=batch.batch_id,
        endpoint=batch.endpoint,
        errors=errors,
        input_file_id=batch.input_file_id,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=batch.created_at_ms // 1000,
        in_progress_at=_seconds(batch.in_progress_at_ms),
        expires_at=batch.expires_at_ms // 1000,
        finalizing_at=_seconds(batch.finalizing_at_ms),
        completed_at=_seconds(batch.completed_at_ms),
        failed_at=_seconds(batch.failed_at_ms),
        expired_at=_seconds(batch.expired_at_ms),
        cancelling_at=_seconds(batch.cancelling_at_ms),
        cancelled_at=_seconds(batch.cancelled_at_ms),
        request_counts=RequestCounts(batch.num_total, batch.num_completed, batch.num_failed),
        metadata=batch.metadata,
        usage=_usage(batch.totals),
    )


def _usage(totals: BatchTotals | None) -> BatchUsage | None:
    if totals is None:
        return None
    return BatchUsage(
        input_tokens=totals.prompt_tokens,
        input_tokens_details=CachedTokens(totals.cached_tokens),
        output_tokens=totals.completion_tokens,
        output_tokens_details=ReasoningTokens(totals.reasoning_tokens),
        total_tokens=totals.prompt_tokens + totals.completion_tokens,
        cost=format_usd(totals.cost_nanousd),
    )


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // 1000
