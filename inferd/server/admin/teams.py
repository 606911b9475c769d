"""Teams: list, create, show, set."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from inferd.errors import InvalidValueError, PermissionDeniedError
from inferd.instants import parse_instant_ms
from inferd.ledger import Connection, Page, operations
from inferd.ledger.identity import delegation
from inferd.ledger.reports import limits_record, listed_teams, team_details_record, team_record
from inferd.plans import DEFAULT_PLAN, Overage
from inferd.server.admin.call import AdminCall, answer
from inferd.server.admin.paging import DEFAULT_LIMIT, MAX_LIMIT, Paging
from inferd.server.query import Query

# Values of `overage` that a team may set for itself; None: it stays the same.
_OWN_OVERAGES = (None, "block", "postpaid")


class NewTeam(msgspec.Struct, forbid_unknown_fields=True):
    team: str
    plan: str = DEFAULT_PLAN


class TeamChange(msgspec.Struct, forbid_unknown_fields=True):
    """Change of a team. Missing fields stay. `tier` null: earned again; `tier_until`: a date, or null for no end."""

    plan: str | msgspec.UnsetType = msgspec.UNSET
    tier: int | msgspec.UnsetType | None = msgspec.UNSET
    tier_until: str | msgspec.UnsetType | None = msgspec.UNSET
    overage: Overage | msgspec.UnsetType = msgspec.UNSET
    payment_method: bool | msgspec.UnsetType = msgspec.UNSET


async def list_teams(call: AdminCall) -> Response:
    paging = Paging.of(call.request)
    found = await call.read(lambda conn: listed_teams(conn, paging.page, now_ms=call.now_ms))
    return paging.answer("teams", found, lambda team: team["team"])


async def create_team(call: AdminCall) -> Response:
    body = await call.body(NewTeam)
    team = await call.change(lambda conn: operations.create_team(conn, body.team, body.plan, by=call.author))
    return answer(team_record(team))


async def show_team(call: AdminCall) -> Response:
    query = Query(call.request)
    limit = query.integer("limit", 1, MAX_LIMIT) or DEFAULT_LIMIT
    query.finish()

    def read(conn: Connection) -> dict[str, Any]:
        details = operations.show_team(conn, call.team, Page(limit=limit + 1), now_ms=call.now_ms)
        limits = operations.show_limits(conn, call.team, Page(limit=limit), now_ms=call.now_ms)
        record = team_details_record(details, call.now_ms) | {"limits": limits_record(limits)}
        for noun in ("projects", "users", "keys"):
            record[f"has_more_{noun}"] = len(record[noun]) > limit
            record[noun] = record[noun][:limit]
        return record

    return answer(await call.read(read))


async def set_team(call: AdminCall) -> Response:
    body = await call.body(TeamChange)
    given: dict[str, Any] = {
        name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not msgspec.UNSET
    }
    if given.get("tier", 0) is None:
        given["earn_tier"] = True
    until = given.pop("tier_until", None)
    if until is not None:
        given["tier_until_ms"] = parse_instant_ms(until)

    def change(conn: Connection) -> dict[str, Any]:
        if not call.is_operator:
            _check_own_terms(call, conn, given)
        if body.tier_until is None and body.tier is msgspec.UNSET:
            raise InvalidValueError("`tier_until` ends the `tier` that is set with it: give both")
        operations.set_team(conn, call.team, operations.TeamChange(**given), by=call.author)
        return limits_record(operations.show_limits(conn, call.team, Page(limit=DEFAULT_LIMIT), now_ms=call.now_ms))

    return answer(await call.change(change))


def _check_own_terms(call: AdminCall, conn: Connection, given: dict[str, Any]) -> None:
    """Raise PermissionDeniedError unless a team may make the change itself."""
    delegation.check_unbound(call.manager(conn))
    if set(given) - {"overage"} or given.get("overage") not in _OWN_OVERAGES:
        raise PermissionDeniedError(
            "A team chooses `overage` for itself, block or postpaid; the rest is the operator's.",
            code="beyond_own_limits",
        )
