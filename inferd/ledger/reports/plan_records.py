"""Plans and tiers as JSON, under the names that models.toml has for them; null: no limit."""

from __future__ import annotations

from typing import Any

from inferd.money import format_usd
from inferd.plans import Plan, Tier


def plan_record(plan: Plan) -> dict[str, Any]:
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


def tier_record(tier: Tier) -> dict[str, Any]:
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
