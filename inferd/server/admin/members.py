"""Projects and users of a team: list, create, set their concurrency limit."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from inferd.ledger import Connection, operations
from inferd.ledger.identity import MemberKind, delegation
from inferd.ledger.reports import listed_members, member_record
from inferd.server.admin.call import AdminCall, answer
from inferd.server.admin.paging import Paging


class NewProject(msgspec.Struct, forbid_unknown_fields=True):
    project: str


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    user: str


class Concurrency(msgspec.Struct, forbid_unknown_fields=True):
    """Maximum number of concurrent requests; null: the plan's number."""

    concurrency: int | None


async def list_projects(call: AdminCall) -> Response:
    return await _list(call, "project", Paging.of(call.request))


async def list_users(call: AdminCall) -> Response:
    return await _list(call, "user", Paging.of(call.request))


async def _list(call: AdminCall, kind: MemberKind, paging: Paging) -> Response:
    found = await call.read(lambda conn: listed_members(conn, kind, call.team, paging.page, now_ms=call.now_ms))
    return paging.answer(f"{kind}s", found, lambda member: member[kind])


async def create_project(call: AdminCall) -> Response:
    return await _create(call, "project", (await call.body(NewProject)).project)


async def create_user(call: AdminCall) -> Response:
    return await _create(call, "user", (await call.body(NewUser)).user)


async def _create(call: AdminCall, kind: MemberKind, name: str) -> Response:
    def change(conn: Connection) -> dict[str, Any]:
        if not call.is_operator:
            manager = call.manager(conn)
            delegation.check_unbound(manager)
            delegation.check_room(conn, manager, "projects" if kind == "project" else "users", call.now_ms)
        return member_record(operations.create_member(conn, kind, call.team, name, by=call.author))

    return answer(await call.change(change))


async def set_project(call: AdminCall) -> Response:
    return await _set(call, "project", await call.body(Concurrency))


async def set_user(call: AdminCall) -> Response:
    return await _set(call, "user", await call.body(Concurrency))


async def _set(call: AdminCall, kind: MemberKind, body: Concurrency) -> Response:
    name = call.path(kind)
    limit = await call.change(
        lambda conn: operations.set_concurrency(conn, kind, call.team, name, body.concurrency, by=call.author)
    )
    return answer({kind: name, "concurrency": limit.max_requests, "source": limit.source})
