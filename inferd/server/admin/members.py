"""Projects and users of a team: list, create, suspend, resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd.ledger import operations
from inferd.ledger.identity import delegation
from inferd.ledger.identity.suspensions import Suspension, resumed_record
from inferd.ledger.reports.listings import listed_projects, listed_users
from inferd.ledger.reports.records import project_record, user_record
from inferd.ledger.storage.client import Connection
from inferd.server.admin.call import AdminCall, answer, operator_call, team_call
from inferd.server.admin.paging import Paging
from inferd.server.admin.teams import Nothing, Reason

Handler = Callable[[Request], Awaitable[Response]]


class NewProject(msgspec.Struct, forbid_unknown_fields=True):
    project: str


class Concurrency(msgspec.Struct, forbid_unknown_fields=True):
    """Requests under way at once; null: what the plan says."""

    concurrency: int | None


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    user: str


def _check(call: AdminCall, conn: Connection, new: Literal["projects", "users"] | None = None) -> None:
    """Whether the caller may change projects and users; and whether its team may have a `new` one."""
    if not call.is_operator:
        manager = call.manager(conn)
        delegation.check_unbound(manager)
        if new is not None:
            delegation.check_room(conn, manager, new, call.now_ms)


async def list_projects(request: Request) -> Response:
    call, paging = team_call(request), Paging.of(request)
    found = await call.read(lambda conn: listed_projects(conn, call.team, paging.page, now_ms=call.now_ms))
    return paging.answer("projects", found, lambda project: project["project"])


async def list_users(request: Request) -> Response:
    call, paging = team_call(request), Paging.of(request)
    found = await call.read(lambda conn: listed_users(conn, call.team, paging.page, now_ms=call.now_ms))
    return paging.answer("users", found, lambda user: user["user"])


async def create_project(request: Request) -> Response:
    call = team_call(request)
    body = await call.body(NewProject)

    def change(conn: Connection) -> dict[str, Any]:
        _check(call, conn, new="projects")
        made = operations.create_project(conn, call.team, body.project, actor=call.actor, now_ms=call.now_ms)
        return project_record(made, frozenset())

    return answer(await call.change(change))


async def create_user(request: Request) -> Response:
    call = team_call(request)
    body = await call.body(NewUser)

    def change(conn: Connection) -> dict[str, Any]:
        _check(call, conn, new="users")
        made = operations.create_user(conn, call.team, body.user, actor=call.actor, now_ms=call.now_ms)
        return user_record(made, frozenset())

    return answer(await call.change(change))


async def set_project(request: Request) -> Response:
    call = operator_call(request)
    body = await call.body(Concurrency)
    limits = await call.change(
        lambda conn: operations.set_project_concurrency(
            conn, call.team, call.path("project"), body.concurrency, actor=call.actor, now_ms=call.now_ms
        )
    )
    return answer(
        {"project": call.path("project"), "concurrency": limits.project_concurrency, "source": limits.project_source}
    )


async def set_user(request: Request) -> Response:
    call = operator_call(request)
    body = await call.body(Concurrency)
    limits = await call.change(
        lambda conn: operations.set_user_concurrency(
            conn, call.team, call.path("user"), body.concurrency, actor=call.actor, now_ms=call.now_ms
        )
    )
    return answer({"user": call.path("user"), "concurrency": limits.user_concurrency, "source": limits.user_source})


def suspender(part: str, operation: Callable[..., Suspension]) -> Handler:
    """The handler that suspends the project or user named by `part` of the path."""

    async def suspend(request: Request) -> Response:
        call = team_call(request)
        body = await call.body(Reason)

        def change(conn: Connection) -> Suspension:
            _check(call, conn)
            return operation(conn, call.team, call.path(part), reason=body.reason, actor=call.actor, now_ms=call.now_ms)

        return answer((await call.change(change)).to_json())

    return suspend


def resumer(part: str, operation: Callable[..., Suspension | None]) -> Handler:
    """The handler that resumes it. A team cannot take back what the operator did."""

    async def resume(request: Request) -> Response:
        call = team_call(request)
        await call.body(Nothing)
        name = call.path(part)

        def change(conn: Connection) -> dict[str, Any]:
            _check(call, conn)
            return resumed_record(conn, operation(conn, call.team, name, actor=call.actor, now_ms=call.now_ms))

        return answer(await call.change(change))

    return resume
