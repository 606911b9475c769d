"""The audit's checks of a team's terms against the log of who set them: plan, tier, at zero, requests at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inferd.ledger.audit.finding import Finding
from inferd.ledger.identity.authority import Authority, authority_of
from inferd.ledger.terms.terms import read_billing
from inferd.subjects import project_subject, user_subject


@dataclass(slots=True)
class _Terms:
    """What the log says of a team. `created`: it says how the team began, too; else only what was set is known."""

    created: bool = False
    plan: str | None = None
    tier: tuple[int | None, int | None] | None = None
    overage: str | None = None
    team_overage: str | None = None
    payment_method: bool | None = None

    def set(self, details: dict[str, Any], authority: Authority) -> None:
        self.plan = details.get("plan", self.plan)
        if "overage" in details and authority == "operator":
            self.overage, self.team_overage = details["overage"], None
        elif "overage" in details:
            # Before schema 13, whose entries name the authority, the choice of a team replaced the operator's.
            self.overage = self.overage if "authority" in details else None
            self.team_overage = details["overage"]
        self.payment_method = details.get("payment_method", self.payment_method)
        if "tier" in details:
            self.tier = (details["tier"], details.get("tier_until_ms"))
        elif details.get("earn_tier"):
            self.tier = (None, None)


def wrong_terms(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Each team has the plan, the tier override, the choice at zero and the payment method that were set last."""
    logged: dict[str, _Terms] = {}
    rows = conn.execute(
        "SELECT action, team, details, actor FROM log WHERE action IN ('teams.create', 'teams.set') ORDER BY seq"
    )
    for action, team, text, actor in rows:
        terms, details = logged.setdefault(team, _Terms()), json.loads(text)
        if action == "teams.create":
            terms.created, terms.plan = True, details["plan"]
            terms.tier, terms.payment_method = (details.get("tier_override"), None), False
        else:
            terms.set(details, details.get("authority") or authority_of(conn, team, actor))
    stored = {
        team: (plan, (tier, until_ms))
        for team, plan, tier, until_ms in conn.execute(
            "SELECT team, plan, tier_override, tier_override_until_ms FROM teams"
        )
    }
    for team, terms in sorted(logged.items()):
        if team not in stored:
            yield Finding("teams", team, "it is missing: the log says that it was created")
            continue
        plan, tier = stored[team]
        if terms.plan not in (None, plan):
            yield Finding("teams", team, f"it is on plan {plan}, and the log says {terms.plan}")
        if terms.tier not in (None, tier):
            yield Finding("teams", team, f"its tier is set to {tier}, and the log says {terms.tier}")
        row = read_billing(conn, team)
        stored_choices, choices = (row.overage, row.team_overage), (terms.overage, terms.team_overage)
        if (terms.created or choices != (None, None)) and stored_choices != choices:
            yield Finding("billing", team, f"at zero it says {stored_choices}, and the log {choices}")
        if terms.payment_method not in (None, row.payment_method):
            yield Finding("billing", team, f"its payment method is {row.payment_method}, the log says otherwise")


def wrong_concurrency(conn: sqlite3.Connection) -> Iterator[Finding]:
    """The numbers of requests at once in force are those that were set last."""
    logged: dict[str, tuple[Any, ...]] = {}
    rows = conn.execute(
        "SELECT team, details, at_ms, actor FROM log WHERE action IN ('projects.set', 'users.set') ORDER BY seq"
    )
    for team, text, at_ms, actor in rows:
        details = json.loads(text)
        project = details.get("project")
        scope = user_subject(team, details["user"]) if project is None else project_subject(team, project)
        if "max_requests" in details:
            logged[scope] = (team, details["max_requests"], at_ms, actor)
        else:
            logged.pop(scope, None)
    stored = {
        scope: tuple(values)
        for scope, *values in conn.execute("SELECT scope, team, max_requests, set_at_ms, set_by FROM concurrency")
    }
    for scope in sorted(logged.keys() | stored.keys()):
        if stored.get(scope) != logged.get(scope):
            yield Finding("concurrency", scope, f"it says {stored.get(scope)}, and the log {logged.get(scope)}")
