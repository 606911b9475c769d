"""`/admin/batches`: cancel a batch of any team."""

from __future__ import annotations

from starlette.responses import Response

from inferd.ledger import operations
from inferd.ledger.reports import batch_record
from inferd.server.admin.call import AdminCall, answer


async def cancel_batch(call: AdminCall) -> Response:
    """Cancel a batch. The server stops it at once, without waiting for its next look at the ledger."""
    batch_id = call.path("batch_id")
    batch = await call.change(lambda conn: operations.cancel_batch(conn, batch_id, by=call.author))
    call.services.batches.wake()
    return answer(batch_record(batch))
