"""Audit of settings against the audit log: suspensions, revocations, terms of teams, concurrency."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inferd.ledger.audit import Finding
from inferd.ledger.audit.audit_log import Values, differences, log_rows, unlogged_teams
from inferd.ledger.identity.authority import Authority
from inferd.ledger.terms.terms import read_billing

_NOUNS = ("teams", "projects", "users", "keys")


def wrong_suspensions(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield suspensions whose subject, authority, author or instant differs from the audit log."""
    logged: dict[tuple[str, ...], Values] = {}
    for row in log_rows(conn, *(f"{noun}.{verb}" for noun in _NOUNS for verb in ("suspend", "resume"))):
        key = (row.subject, row.authority(conn))
        if row.action.endswith(".suspend"):
            logged[key] = (row.team, row.details.get("reason"), row.at_ms, row.actor)
        elif logged.pop(key, None) is None:
            # The operator also ends a suspension by the team.
            logged.pop((row.subject, "team"), None)
    stored: dict[tuple[str, ...], Values] = {
        (subject, authority): tuple(values)
        for subject, authority, *values in conn.execute(
            "SELECT subject, authority, team, reason, suspended_at_ms, suspended_by FROM suspensions"
        )
    }
    yield from differences("suspensions", logged, stored, name=lambda key: key[0])


def wrong_revocations(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield keys whose revocation, or its author or instant, differs from the audit log."""
    logged = {row.details["key_id"]: (row.at_ms, row.actor) for row in log_rows(conn, "keys.revoke")}
    teams = unlogged_teams(conn)
    for key_id, team, at_ms, actor in conn.execute("SELECT key_id, team, revoked_at_ms, revoked_by FROM keys"):
        stored = None if at_ms is None else (at_ms, actor)
        if stored != logged.get(key_id) and (key_id in logged or team not in teams):
            yield Finding("keys", key_id, f"its revocation is {stored}, and the audit log says {logged.get(key_id)}")


@dataclass(slots=True)
class _Terms:
    """A team's terms by the audit log; None: not set. `created`: it also has the team's first terms."""

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
            # Before schema 13, whose rows name the authority, the team's choice replaced the operator's.
            self.overage = self.overage if "authority" in details else None
            self.team_overage = details["overage"]
        self.payment_method = details.get("payment_method", self.payment_method)
        if "tier" in details:
            self.tier = (details["tier"], details.get("tier_until_ms"))
        elif details.get("earn_tier"):
            self.tier = (None, None)


def wrong_terms(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield teams whose plan, tier override, overage or payment method differs from the last one set."""
    stored = {
        team: (plan, (tier, until_ms))
        for team, plan, tier, until_ms in conn.execute(
            "SELECT team, plan, tier_override, tier_override_until_ms FROM teams"
        )
    }
    for team, terms in sorted(_logged_terms(conn).items()):
        if team not in stored:
            yield Finding("teams", team, "it is missing: the audit log says that it was created")
            continue
        plan, tier = stored[team]
        if terms.plan not in (None, plan):
            yield Finding("teams", team, f"its plan is {plan}, and the audit log says {terms.plan}")
        if terms.tier not in (None, tier):
            yield Finding("teams", team, f"its tier override is {tier}, and the audit log says {terms.tier}")
        row = read_billing(conn, team)
        overage, logged_overage = (row.overage, row.team_overage), (terms.overage, terms.team_overage)
        if (terms.created or logged_overage != (None, None)) and overage != logged_overage:
            yield Finding("billing", team, f"its overage is {overage}, and the audit log says {logged_overage}")
        if terms.payment_method not in (None, row.payment_method):
            yield Finding(
                "billing",
                team,
                f"its payment method is {row.payment_method}, and the audit log says {terms.payment_method}",
            )


def _logged_terms(conn: sqlite3.Connection) -> dict[str, _Terms]:
    logged: dict[str, _Terms] = {}
    for row in log_rows(conn, "teams.create", "teams.set"):
        terms = logged.setdefault(row.team, _Terms())
        if row.action == "teams.create":
            terms.created, terms.plan = True, row.details["plan"]
            terms.tier, terms.payment_method = (row.details.get("tier_override"), None), False
        else:
            terms.set(row.details, row.authority(conn))
    return logged


def wrong_concurrency(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield projects and users whose `max_requests` differs from the last one set."""
    logged: dict[str, Values] = {}
    for row in log_rows(conn, "projects.set", "users.set"):
        if "max_requests" in row.details:
            logged[row.subject] = (row.team, row.details["max_requests"], row.at_ms, row.actor)
        else:
            logged.pop(row.subject, None)
    stored: dict[str, Values] = {
        scope: tuple(values)
        for scope, *values in conn.execute("SELECT scope, team, max_requests, set_at_ms, set_by FROM concurrency")
    }
    yield from differences("concurrency", logged, stored)
