"""Keys of a team: list, create, revoke."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from inferd.instants import parse_instant_ms
from inferd.ledger import Connection, operations
from inferd.ledger.identity import Key, delegation, find_key, unknown_deployments
from inferd.ledger.reports import key_record, listed_keys
from inferd.server.admin.call import AdminCall, answer
from inferd.server.admin.paging import Paging
from inferd.server.admin.suspensions import Nothing, check_key


class NewKeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """`expires_at`: a date or moment; null: never, or when the manager's own key does. `trusted`: for the operator."""

    name: str | None = None
    project: str | None = None
    user: str | None = None
    expires_at: str | None = None
    scopes: list[str] | None = None
    models: list[str] | None = None
    trusted: bool = False


async def list_keys(call: AdminCall) -> Response:
    paging = Paging.of(call.request)
    found = await call.read(lambda conn: listed_keys(conn, call.team, paging.page, now_ms=call.now_ms))
    return paging.answer("keys", found, lambda key: key["id"])


async def create_key(call: AdminCall) -> Response:
    """Create a key. Only this answer has the text of the key."""
    body = await call.body(NewKeyBody)
    asked = operations.KeyRequest(
        project=body.project,
        user=body.user,
        label=body.name,
        expires_at_ms=None if body.expires_at is None else parse_instant_ms(body.expires_at),
        scopes=body.scopes,
        models=body.models,
        trusted=body.trusted,
    )
    deployments = [deployment.name for deployment in call.services.router.deployments()]

    def change(conn: Connection) -> dict[str, Any]:
        request = asked
        if not call.is_operator:
            manager = call.manager(conn)
            request = delegation.granted_key(conn, manager, asked)
            delegation.check_room(conn, manager, "keys", call.now_ms)
        made = operations.create_key(conn, call.team, request, by=call.author)
        warnings = unknown_deployments(body.models or (), deployments)
        return {"key": made.key} | key_record(find_key(conn, made.id), call.now_ms) | {"warnings": warnings}

    return answer(await call.change(change))


async def revoke_key(call: AdminCall) -> Response:
    await call.body(Nothing)

    def change(conn: Connection) -> Key:
        check_key(call, conn)
        return operations.revoke_key(conn, call.path("key_id"), by=call.author)

    return answer(key_record(await call.change(change), call.now_ms))
