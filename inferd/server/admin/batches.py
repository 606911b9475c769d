"""`/admin/batches`: cancel a batch of any team."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inferd.ledger import operations
from inferd.server.admin.call import answer, operator_call
from inferd.server.services import services_of


async def cancel_batch(request: Request) -> Response:
    """Cancel a batch. The server stops it at once, without waiting for its next look at the ledger."""
    call = operator_call(request)
    batch_id = call.path("batch_id")
    batch = await call.change(
        lambda conn: operations.cancel_batch(conn, batch_id, actor=call.actor, now_ms=call.now_ms)
    )
    services_of(request).batches.wake()
    return answer(batch.to_json())
