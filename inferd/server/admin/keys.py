"""Keys of a team: list, create, revoke, suspend, resume."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd.errors import NotFoundError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.identity import delegation
from inferd.ledger.identity.delegation import KeyWish
from inferd.ledger.identity.keys import DEFAULT_SCOPES, find_key
from inferd.ledger.identity.names import unknown_deployments
from inferd.ledger.identity.suspensions import resumed_record
from inferd.ledger.reports.listings import listed_keys
from inferd.ledger.reports.records import key_record
from inferd.ledger.storage.client import Connection
from inferd.server.admin.call import AdminCall, answer, team_call
from inferd.server.admin.paging import Paging
from inferd.server.admin.teams import Nothing, Reason
from inferd.server.services import services_of


class NewKeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """`expires_at`: a date or moment; null: never, or when the manager's own key does."""

    name: str | None = None
    project: str | None = None
    user: str | None = None
    expires_at: str | None = None
    scopes: list[str] | None = None
    models: list[str] | None = None


async def list_keys(request: Request) -> Response:
    call, paging = team_call(request), Paging.of(request)
    found = await call.read(lambda conn: listed_keys(conn, call.team, paging.page, now_ms=call.now_ms))
    return paging.answer("keys", found, lambda key: key["id"])


async def create_key(request: Request) -> Response:
    """The answer is the only time that the key is shown."""
    call = team_call(request)
    body = await call.body(NewKeyBody)
    expires_at_ms = None if body.expires_at is None else parse_instant_ms(body.expires_at)
    deployments = [deployment.name for deployment in services_of(request).router.deployments()]
    asked = KeyWish(body.project, body.user, expires_at_ms, body.scopes, body.models)

    def change(conn: Connection) -> dict[str, Any]:
        wish = asked
        if not call.is_operator:
            manager = call.manager(conn)
            wish = delegation.granted_key(conn, manager, asked)
            delegation.check_room(conn, manager, "keys", call.now_ms)
        made = operations.create_key(
            conn,
            call.team,
            project=wish.project,
            user=wish.user,
            label=body.name,
            expires_at_ms=wish.expires_at_ms,
            scopes=DEFAULT_SCOPES if wish.scopes is None else wish.scopes,
            models=wish.models,
            actor=call.actor,
            now_ms=call.now_ms,
        )
        warnings = unknown_deployments(body.models or (), deployments)
        return {"key": made.key} | key_record(find_key(conn, made.id), call.now_ms) | {"warnings": warnings}

    return answer(await call.change(change))


def _check(call: AdminCall, conn: Connection) -> str:
    """The id in the path, if it is a key of this team that the caller may touch."""
    key_id = call.path("key_id")
    target = find_key(conn, key_id)
    if target.team != call.team:
        raise NotFoundError(f"there is no key {key_id!r}; `inferd keys list` shows the ids")
    if not call.is_operator:
        delegation.check_key(call.manager(conn), target)
    return key_id


async def revoke_key(request: Request) -> Response:
    call = team_call(request)
    await call.body(Nothing)
    key = await call.change(
        lambda conn: operations.revoke_key(conn, _check(call, conn), actor=call.actor, now_ms=call.now_ms)
    )
    return answer(key_record(key, call.now_ms))


async def suspend_key(request: Request) -> Response:
    call = team_call(request)
    body = await call.body(Reason)
    made = await call.change(
        lambda conn: operations.suspend_key(
            conn, _check(call, conn), reason=body.reason, actor=call.actor, now_ms=call.now_ms
        )
    )
    return answer(made.to_json())


async def resume_key(request: Request) -> Response:
    call = team_call(request)
    await call.body(Nothing)

    def change(conn: Connection) -> dict[str, Any]:
        ended = operations.resume_key(conn, _check(call, conn), actor=call.actor, now_ms=call.now_ms)
        return resumed_record(conn, ended)

    return answer(await call.change(change))
