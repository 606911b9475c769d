"""Suspend and resume a team, a project, a user or a key."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from inferd.ledger import Connection, operations
from inferd.ledger.identity import Suspension, delegation, find_key
from inferd.ledger.reports import resumed_record, suspension_record
from inferd.server.admin.call import AdminCall, Handler, answer


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str | None = None


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


def suspender(kind: operations.SubjectKind) -> Handler:
    """Return the handler that suspends the subject of a kind that the path names."""

    async def suspend(call: AdminCall) -> Response:
        body = await call.body(Reason)

        def change(conn: Connection) -> Suspension:
            names = _names(call, conn, kind)
            return operations.suspend(conn, kind, names, reason=body.reason, by=call.author)

        return answer(suspension_record(await call.change(change)))

    suspend.__name__ = f"suspend_{kind}"  # the summary in openapi.json
    return suspend


def resumer(kind: operations.SubjectKind) -> Handler:
    """Return the handler that resumes the subject of a kind that the path names."""

    async def resume(call: AdminCall) -> Response:
        await call.body(Nothing)

        def change(conn: Connection) -> dict[str, Any]:
            return resumed_record(conn, operations.resume(conn, kind, _names(call, conn, kind), by=call.author))

        return answer(await call.change(change))

    resume.__name__ = f"resume_{kind}"
    return resume


def _names(call: AdminCall, conn: Connection, kind: operations.SubjectKind) -> tuple[str, ...]:
    """Return the names of the subject. Raises PermissionDeniedError unless the caller may suspend it."""
    if kind == "team":
        return (call.team,)
    if kind == "key":
        check_key(call, conn)
        return (call.path("key_id"),)
    if not call.is_operator:
        delegation.check_unbound(call.manager(conn))
    return call.team, call.path(kind)


def check_key(call: AdminCall, conn: Connection) -> None:
    """Raise NotFoundError or PermissionDeniedError unless the caller may change the key in the path."""
    target = find_key(conn, call.path("key_id"), call.team)
    if not call.is_operator:
        delegation.check_key(call.manager(conn), target)
