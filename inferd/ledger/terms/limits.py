"""Limits of a team other than money, each with its source (BILLING R1, R10, R11, R15, R18)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from inferd.instants import format_instant
from inferd.ledger.storage.rows import insert
from inferd.ledger.terms.catalog import IN_FORCE, catalog_of
from inferd.plans import Plan, Tier
from inferd.subjects import project_subject, user_subject

BY_OPERATOR = "set by the operator"


@dataclass(frozen=True, slots=True)
class TierChoice:
    """The stored facts about a team's tier. `override_until_ms`: the first moment without the override."""

    override: int | None
    override_until_ms: int | None
    earned: int

    def in_effect(self, plan: Plan, at_ms: int) -> tuple[int, str]:
        """Return the tier and its source: `override ?? max(earned, plan.tier_floor)` (R1)."""
        if self.override is not None:
            if self.override_until_ms is None:
                return self.override, BY_OPERATOR
            if at_ms < self.override_until_ms:
                return self.override, f"{BY_OPERATOR} until {format_instant(self.override_until_ms)}"
        if self.earned > plan.tier_floor:
            return self.earned, "earned"
        return plan.tier_floor, f"minimum of plan {plan.name}"


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One number for people. `value` None: no limit; `least`: the floor of an adaptive limit."""

    name: str
    value: int | None
    source: str
    least: int | None = None


@dataclass(frozen=True, slots=True)
class TeamLimits:
    """The limits of a team other than money, at one moment; None: no limit.

    Attributes:
        tier: the tier in effect; `tier_source` says why.
        project_concurrency, user_concurrency: the most requests under way of the project and user that were asked for,
            else of each; `project_source` and `user_source` say where the number comes from.
    """

    team: str
    plan: Plan
    tier: Tier
    tier_source: str
    project_concurrency: int | None
    project_source: str
    user_concurrency: int | None
    user_source: str

    def rows(self) -> Iterator[LimitRow]:
        """Yield every number and its source."""
        tier, source = self.tier, f"tier {self.tier.number}"
        yield LimitRow("requests a minute", tier.rpm, source, tier.rpm_min)
        yield LimitRow("requests a minute to free models", tier.free_rpm, source, tier.free_rpm_min)
        yield LimitRow("output tokens a request", tier.max_output_tokens, source)
        for name, least in (
            ("prompt", tier.prompt_tpm),
            ("uncached prompt", tier.uncached_prompt_tpm),
            ("generated", tier.generated_tpm),
        ):
            ceiling = tier.token_rate_ceiling
            most = None if ceiling is None else least * ceiling
            yield LimitRow(f"{name} tokens a minute and model", most, source, None if most is None else least)
        yield LimitRow("prompt tokens in batches that have not ended", tier.batch_queued_tokens, source)
        yield LimitRow("requests at once in a project", self.project_concurrency, self.project_source)
        yield LimitRow("requests at once of a user", self.user_concurrency, self.user_source)
        plan = self.plan
        for name, most in (("projects", plan.max_projects), ("users", plan.max_users), ("keys", plan.max_keys)):
            yield LimitRow(f"{name} that the team makes itself", most, f"plan {plan.name}")


def team_limits(
    conn: sqlite3.Connection, team: str, at_ms: int, *, project: str | None = None, user: str | None = None
) -> TeamLimits:
    """Return the limits of an existing team and of one project and user of it. One point query of about 10 us, so each
    request reads them and they are never out of date."""
    plan_name, override, until_ms, earned, catalog_text, project_limit, user_limit = conn.execute(
        f"SELECT plan, tier_override, tier_override_until_ms, coalesce(earned_tier, 0), {IN_FORCE}, "
        "(SELECT max_requests FROM concurrency WHERE scope = ?2), "
        "(SELECT max_requests FROM concurrency WHERE scope = ?3) "
        "FROM teams LEFT JOIN billing USING (team) WHERE teams.team = ?1",
        (
            team,
            None if project is None else project_subject(team, project),
            None if user is None else user_subject(team, user),
        ),
    ).fetchone()
    catalog = catalog_of(catalog_text)
    plan = catalog.plans[plan_name]
    number, source = TierChoice(override, until_ms, earned).in_effect(plan, at_ms)
    of_plan = f"plan {plan.name}"
    return TeamLimits(
        team=team,
        plan=plan,
        tier=catalog.tiers[number],
        tier_source=source,
        project_concurrency=plan.project_concurrency if project_limit is None else project_limit,
        project_source=of_plan if project_limit is None else BY_OPERATOR,
        user_concurrency=plan.user_concurrency if user_limit is None else user_limit,
        user_source=of_plan if user_limit is None else BY_OPERATOR,
    )


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """The most requests under way of a project or user, set by the operator in place of the plan's number (R10)."""

    scope: str
    team: str
    max_requests: int
    set_at_ms: int
    set_by: str


def concurrency_of(conn: sqlite3.Connection, team: str) -> list[ConcurrencyLimit]:
    """Return the limits of a team's projects and users, by scope."""
    rows = conn.execute(
        "SELECT scope, team, max_requests, set_at_ms, set_by FROM concurrency WHERE team = ? ORDER BY scope", (team,)
    )
    return [ConcurrencyLimit(*row) for row in rows]


def put_concurrency(conn: sqlite3.Connection, limit: ConcurrencyLimit) -> None:
    """Set a limit, in place of an earlier one."""
    drop_concurrency(conn, limit.scope)
    insert(conn, "concurrency", asdict(limit))


def drop_concurrency(conn: sqlite3.Connection, scope: str) -> None:
    """End the limit of a scope: the plan's number applies again."""
    conn.execute("DELETE FROM concurrency WHERE scope = ?", (scope,))
