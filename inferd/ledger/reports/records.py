"""JSON of the ledger's types: the output of `--json` and the answers of the admin API have the same fields.

Amounts are decimal strings of USD, moments ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from inferd.instants import format_instant
from inferd.ledger.alerts.alerts import Alert, alert_text
from inferd.ledger.alerts.deliveries import AlertState
from inferd.ledger.batches.records import MOMENTS, BatchRecord
from inferd.ledger.identity.keys import Key
from inferd.ledger.identity.suspensions import Suspension
from inferd.ledger.identity.teams import Member, Team
from inferd.ledger.operations.audit_log import LogEntry, details_json
from inferd.ledger.operations.teams import Limits
from inferd.ledger.terms.budgets import Budget, CapAdjustment
from inferd.ledger.terms.caps import Cap
from inferd.ledger.terms.limits import ConcurrencyLimit, LimitRow
from inferd.money import format_usd
from inferd.plans import UNITS, Plan, Tier, Unit
from inferd.subjects import team_subject

Record = dict[str, Any]


def team_record(team: Team, suspended: Set[str] = frozenset()) -> Record:
    """Return a team; `suspended`: the suspended subjects of the ledger or of the team."""
    return {
        "team": team.team,
        "plan": team.plan,
        "tier_override": team.tier_override,
        "tier_override_until": instant(team.tier_override_until_ms),
        "status": _status(team_subject(team.team), suspended),
        "created_at": format_instant(team.created_at_ms),
        "created_by": team.created_by,
    }


def member_record(member: Member, suspended: Set[str] = frozenset()) -> Record:
    """Return a project or user."""
    return {
        "team": member.team,
        member.kind: member.name,
        "status": _status(member.subject, suspended),
        "created_at": format_instant(member.created_at_ms),
        "created_by": member.created_by,
    }


def key_record(key: Key, now_ms: int) -> Record:
    """Return a key, without its text."""
    return {
        "id": key.key_id,
        "team": key.team,
        "project": key.project,
        "user": key.user,
        "name": key.label,
        "last4": key.last4,
        "scopes": list(key.scopes),
        "models": None if key.models is None else list(key.models),
        "trusted": key.trusted,
        "status": key.status(now_ms),
        "expires_at": instant(key.expires_at_ms),
        "created_at": format_instant(key.created_at_ms),
        "created_by": key.created_by,
        "revoked_at": instant(key.revoked_at_ms),
        "revoked_by": key.revoked_by,
    }


def with_budgets(record: Record, budgets: Iterable[Budget]) -> Record:
    """Return the record of a project, user or key with its own budgets by period, those in USD apart from those in
    tokens and in milliseconds of compute; of two budgets the smaller."""
    own: dict[Unit, dict[str, int]] = {unit: {} for unit in UNITS}
    for budget in budgets:
        amounts = own[budget.unit]
        amounts[budget.period] = min(budget.amount, amounts.get(budget.period, budget.amount))
    usd = {period: format_usd(amount) for period, amount in own["usd"].items()}
    return record | {"budgets": usd, "token_budgets": own["tokens"], "compute_ms_budgets": own["compute_ms"]}


def suspension_record(suspension: Suspension) -> Record:
    """Return a suspension."""
    return {
        "subject": suspension.subject,
        "authority": suspension.authority,
        "team": suspension.team,
        "reason": suspension.reason,
        "suspended_at": format_instant(suspension.suspended_at_ms),
        "suspended_by": suspension.suspended_by,
    }


def log_record(entry: LogEntry) -> Record:
    """Return an entry of the audit log."""
    return {
        "seq": entry.seq,
        "at": format_instant(entry.at_ms),
        "actor": entry.actor,
        "action": entry.action,
        "team": entry.team,
        "details": details_json(entry.details),
    }


def limits_record(limits: Limits) -> Record:
    """Return the terms in effect with their origins, caps and raises."""
    terms = limits.terms
    return {
        "team": limits.team,
        "plan": terms.plan.name,
        "tier": terms.tier,
        "tier_source": terms.tier_source,
        "earned_tier": terms.earned_tier,
        "overage": terms.overage,
        "overage_source": terms.overage_source,
        "payment_method": terms.payment_method,
        "rates": [limit_record(row) for row in limits.rates.rows()],
        "concurrency": [_concurrency_record(limit) for limit in limits.concurrency],
        "caps": [cap_record(cap) for cap in limits.caps],
        "defaults": [budget_record(budget) for budget in limits.defaults],
        "raises": [raise_record(each) for each in limits.raises],
    }


def limit_record(row: LimitRow) -> Record:
    """Return one limit of requests or tokens; `value` null: no limit."""
    return {"limit": row.name, "value": row.value, "least": row.least, "source": row.source}


def _concurrency_record(limit: ConcurrencyLimit) -> Record:
    return {
        "scope": limit.scope,
        "team": limit.team,
        "max_requests": limit.max_requests,
        "set_at": format_instant(limit.set_at_ms),
        "set_by": limit.set_by,
    }


def cap_record(cap: Cap) -> Record:
    """Return a cap with its counter."""
    amounts = {
        "limit": cap.limit,
        "base": cap.base,
        "raised": cap.raised,
        "posted": cap.spend.posted,
        "held": cap.spend.held,
        "left": cap.left,
    }
    return {
        "scope": cap.scope,
        "source": cap.source,
        "source_name": cap.source_name,
        "period": cap.period,
        **amount_fields(cap.unit, amounts),
        "resets_at": instant(cap.resets_at_ms),
    }


def amount_fields(unit: Unit, amounts: Mapping[str, int]) -> Record:
    """Return amounts in fields by their unit: `limit_usd` has decimal strings, null in other units; `limit` has tokens
    or milliseconds of compute, null in USD."""
    in_usd = unit == "usd"
    usd = {f"{name}_usd": format_usd(amount) if in_usd else None for name, amount in amounts.items()}
    return {"unit": unit, **usd, **{name: None if in_usd else amount for name, amount in amounts.items()}}


def budget_record(budget: Budget) -> Record:
    """Return a budget."""
    return {
        "scope": budget.scope,
        "period": budget.period,
        "authority": budget.authority,
        "team": budget.team,
        **amount_fields(budget.unit, {"amount": budget.amount}),
        "set_at": format_instant(budget.set_at_ms),
        "set_by": budget.set_by,
    }


def raise_record(made: CapAdjustment) -> Record:
    """Return a raise of a team's caps."""
    return {
        "adjustment_id": made.adjustment_id,
        "team": made.team,
        "from": format_instant(made.from_ms),
        "until": format_instant(made.until_ms),
        "amount_usd": format_usd(made.amount_nanousd),
        "reason": made.reason,
        "actor": made.actor,
        "at": format_instant(made.at_ms),
    }


def batch_record(batch: BatchRecord) -> Record:
    """Return a batch."""
    totals = batch.totals
    usage = None
    if totals is not None:
        usage = {
            "prompt_tokens": totals.prompt_tokens,
            "cached_tokens": totals.cached_tokens,
            "completion_tokens": totals.completion_tokens,
            "reasoning_tokens": totals.reasoning_tokens,
            "cost_usd": format_usd(totals.cost_nanousd),
        }
    return {
        "batch_id": batch.batch_id,
        "team": batch.team,
        "project": batch.project,
        "user": batch.user,
        "key_id": batch.key_id,
        "status": batch.status,
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file_id,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "request_counts": {"total": batch.num_total, "completed": batch.num_completed, "failed": batch.num_failed},
        "metadata": batch.metadata,
        "usage": usage,
        **{f"{name}_at": instant(getattr(batch, f"{name}_at_ms")) for name in ("created", "expires", *MOMENTS)},
    }


def alert_record(alert: Alert) -> Record:
    """Return an alert as webhooks and teams see it."""
    return {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "team": alert.team,
        "scope": alert.scope,
        "source": alert.source,
        "period": alert.period,
        "threshold_percent": alert.threshold_percent,
        **amount_fields(alert.unit, {"limit": alert.limit_amount, "value": alert.value_amount}),
        "at": format_instant(alert.at_ms),
        "text": alert_text(alert),
    }


def alert_state_record(state: AlertState) -> Record:
    """Return an alert with its deliveries, for the operator."""
    deliveries = [
        {
            "url": delivery.url,
            "state": delivery.state,
            "attempts": delivery.attempts,
            "next_at": instant(delivery.next_at_ms),
            "last_error": delivery.last_error,
        }
        for delivery in state.deliveries
    ]
    return alert_record(state.alert) | {"deliveries": deliveries}


def plan_record(plan: Plan) -> Record:
    """Return a plan under the names of models.toml; null: no limit."""
    yearly = plan.cap_period == "year"
    return {
        "plan": plan.name,
        "monthly_cap_usd": None if yearly else format_usd(plan.cap_nanousd),
        "yearly_cap_usd": format_usd(plan.cap_nanousd) if yearly else None,
        "overage": plan.overage,
        "tier_floor": plan.tier_floor,
        "signup_credit_usd": format_usd(plan.signup_nanousd),
        "included_credit_usd": format_usd(plan.included_nanousd),
        "included_every": plan.included_every,
        "included_valid_days": plan.included_valid_days,
        "payment_method_required": plan.payment_method_required,
        "project_concurrency": plan.project_concurrency,
        "user_concurrency": plan.user_concurrency,
        "max_projects": plan.max_projects,
        "max_users": plan.max_users,
        "max_keys": plan.max_keys,
    }


def tier_record(tier: Tier) -> Record:
    """Return a tier under the names of models.toml; null: no limit."""
    return {
        "tier": tier.number,
        "rpm": tier.rpm,
        "rpm_min": tier.rpm_min,
        "free_rpm": tier.free_rpm,
        "free_rpm_min": tier.free_rpm_min,
        "max_output_tokens": tier.max_output_tokens,
        "monthly_usd": None if tier.monthly_nanousd is None else format_usd(tier.monthly_nanousd),
        "qualifying_usd": None if tier.qualifying_nanousd is None else format_usd(tier.qualifying_nanousd),
        "prompt_tpm": tier.prompt_tpm,
        "uncached_prompt_tpm": tier.uncached_prompt_tpm,
        "generated_tpm": tier.generated_tpm,
        "token_rate_ceiling": tier.token_rate_ceiling,
        "batch_queued_tokens": tier.batch_queued_tokens,
    }


def instant(at_ms: int | None) -> str | None:
    """Return an instant as ISO 8601; None without one."""
    return None if at_ms is None else format_instant(at_ms)


def _status(subject: str, suspended: Set[str]) -> str:
    return "suspended" if subject in suspended else "active"
