"""`[plans.*]` and `[tiers.*]` of models.toml: changes of the shipped plans and tiers, and more plans."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from inferd.config.toml_table import TomlTable, quoted
from inferd.errors import ConfigError
from inferd.plans import (
    EARNED_TIERS,
    INCLUDED_EVERY,
    OVERAGES,
    SHIPPED_PLANS,
    SHIPPED_TIERS,
    TOP_TIER,
    CapPeriod,
    Catalog,
    Plan,
    Tier,
)

PLAN_KEYS = (
    "monthly_cap_usd",
    "yearly_cap_usd",
    "overage",
    "tier_floor",
    "signup_credit_usd",
    "included_credit_usd",
    "included_every",
    "included_valid_days",
    "payment_method_required",
    "project_concurrency",
    "user_concurrency",
    "max_projects",
    "max_users",
    "max_keys",
)
TIER_KEYS = (
    "rpm",
    "rpm_min",
    "free_rpm",
    "free_rpm_min",
    "max_output_tokens",
    "monthly_usd",
    "qualifying_usd",
    "prompt_tpm",
    "uncached_prompt_tpm",
    "generated_tpm",
    "token_rate_ceiling",
    "batch_queued_tokens",
)
UNLIMITED = "unlimited"

_PLAN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MAX_USD = 1_000_000_000
_MAX_COUNT = 2**40
_T = TypeVar("_T", bound=str)
_Amount = TypeVar("_Amount", int, None, int | None)


def catalog_config(path: Path, plans: Mapping[str, Any], tiers: Mapping[str, Any]) -> Catalog:
    """Return the shipped catalog, changed by `[plans.*]` and `[tiers.*]`. Raises ConfigError."""
    made = {name: _plan(TomlTable(path, "plans", name, values, PLAN_KEYS)) for name, values in plans.items()}
    by_number = {str(tier.number): tier for tier in SHIPPED_TIERS}
    for name, values in tiers.items():
        if name not in by_number:
            raise ConfigError(f"{path}: [tiers] {quoted(name)}: unknown tier; a tier is 0 to {TOP_TIER}")
        by_number[name] = _tier(TomlTable(path, "tiers", name, values, TIER_KEYS), by_number[name])
    catalog = Catalog({**SHIPPED_PLANS, **made}, tuple(by_number.values()))
    for number, key, what in _contradictions(catalog.tiers):
        raise ConfigError(f"{path}: [tiers.{number}] {key}: {what}")
    return catalog


def _plan(table: TomlTable) -> Plan:
    if not _PLAN_NAME.fullmatch(table.name):
        raise ConfigError(
            f"{table.path}: [plans] {quoted(table.name)}: a name has 1 to 64 lower-case letters, digits, '_' and '-'"
        )
    cap_nanousd, cap_period = _cap(table)
    shipped = SHIPPED_PLANS.get(table.name, Plan(table.name, cap_nanousd, cap_period, "block", 0))
    plan = replace(
        shipped,
        cap_nanousd=cap_nanousd,
        cap_period=cap_period,
        overage=_one_of(table, "overage", OVERAGES, shipped.overage),
        tier_floor=table.integer("tier_floor", shipped.tier_floor, 0, TOP_TIER),
        signup_nanousd=_usd(table, "signup_credit_usd", shipped.signup_nanousd),
        included_nanousd=_usd(table, "included_credit_usd", shipped.included_nanousd),
        included_every=_one_of(table, "included_every", INCLUDED_EVERY, shipped.included_every),
        included_valid_days=table.integer("included_valid_days", shipped.included_valid_days, 1, 36_500),
        payment_method_required=_flag(table, "payment_method_required", shipped.payment_method_required),
        project_concurrency=_limit(table, "project_concurrency", shipped.project_concurrency),
        user_concurrency=_limit(table, "user_concurrency", shipped.user_concurrency),
        max_projects=_limit(table, "max_projects", shipped.max_projects),
        max_users=_limit(table, "max_users", shipped.max_users),
        max_keys=_limit(table, "max_keys", shipped.max_keys),
    )
    for key in ("included_every", "included_valid_days"):
        if key in table and not plan.included_nanousd:
            raise table.error(key, "needs included_credit_usd")
    return plan


def _cap(table: TomlTable) -> tuple[int, CapPeriod]:
    monthly, yearly = "monthly_cap_usd", "yearly_cap_usd"
    if monthly in table and yearly in table:
        raise table.error(yearly, f"a plan has one cap: remove this key, or {monthly}")
    if monthly in table or yearly in table:
        key = yearly if yearly in table else monthly
        return _usd(table, key, 0), "year" if key == yearly else "month"
    if table.name not in SHIPPED_PLANS:
        raise table.error(monthly, f"is missing: a plan needs {monthly} or {yearly}")
    shipped = SHIPPED_PLANS[table.name]
    return shipped.cap_nanousd, shipped.cap_period


def _tier(table: TomlTable, shipped: Tier) -> Tier:
    if "qualifying_usd" in table and shipped.number not in EARNED_TIERS:
        why = "any payment or a payment method earns it" if shipped.number == 1 else "payments do not earn it"
        raise table.error("qualifying_usd", f"must not be set for tier {shipped.number}: {why}")
    if "monthly_usd" in table and shipped.number == 0:
        raise table.error("monthly_usd", "must not be set for tier 0: its credit is its limit")
    rpm, rpm_min = _adaptive(table, "rpm", shipped.rpm, shipped.rpm_min)
    free_rpm, free_rpm_min = _adaptive(table, "free_rpm", shipped.free_rpm, shipped.free_rpm_min)
    unlimited_usd = table.is_text("monthly_usd", UNLIMITED)
    return replace(
        shipped,
        rpm=rpm,
        rpm_min=rpm_min,
        free_rpm=free_rpm,
        free_rpm_min=free_rpm_min,
        max_output_tokens=_limit(table, "max_output_tokens", shipped.max_output_tokens),
        monthly_nanousd=None if unlimited_usd else _usd(table, "monthly_usd", shipped.monthly_nanousd),
        qualifying_nanousd=_usd(table, "qualifying_usd", shipped.qualifying_nanousd),
        prompt_tpm=table.integer("prompt_tpm", shipped.prompt_tpm, 1, _MAX_COUNT),
        uncached_prompt_tpm=table.integer("uncached_prompt_tpm", shipped.uncached_prompt_tpm, 1, _MAX_COUNT),
        generated_tpm=table.integer("generated_tpm", shipped.generated_tpm, 1, _MAX_COUNT),
        token_rate_ceiling=_limit(table, "token_rate_ceiling", shipped.token_rate_ceiling, most=1_000_000),
        batch_queued_tokens=_limit(table, "batch_queued_tokens", shipped.batch_queued_tokens),
    )


def _adaptive(table: TomlTable, key: str, most: int | None, least: int | None) -> tuple[int | None, int | None]:
    """Return a rate, and the rate that it may shrink to; None: it is not adaptive."""
    key_min = f"{key}_min"
    most = _limit(table, key, most, most=_MAX_COUNT)
    if most is None:
        if key_min in table:
            raise table.error(key_min, f"must not be set if {key} is {UNLIMITED}")
        return None, None
    least = table.integer(key_min, least, 1, _MAX_COUNT)
    if least is not None and least > most:
        raise table.error(key, f"must be at least {key_min} ({least}), got {most}")
    return most, least


def _contradictions(tiers: tuple[Tier, ...]) -> Iterator[tuple[int, str, str]]:
    """Yield (tier, key, fault) where a tier has less than the one below. Tier 5 is set by hand, and not checked."""
    for lower, tier in pairwise(tiers[:TOP_TIER]):
        for key in ("rpm", "free_rpm", "max_output_tokens", "token_rate_ceiling", "batch_queued_tokens"):
            if _more(getattr(lower, key), getattr(tier, key)):
                yield tier.number, key, f"must be at least that of tier {lower.number}"
        if lower.number and _more(lower.monthly_nanousd, tier.monthly_nanousd):
            yield tier.number, "monthly_usd", f"must be at least that of tier {lower.number}"
    needed = [tiers[number].qualifying_nanousd or 0 for number in EARNED_TIERS]
    for number, (less, more) in zip(EARNED_TIERS[1:], pairwise(needed), strict=True):
        if less >= more:
            yield number, "qualifying_usd", f"must be more than that of tier {number - 1}"
    if needed[0] <= 0:
        yield EARNED_TIERS[0], "qualifying_usd", "must be more than 0: any payment earns tier 1"


def _more(one: int | None, other: int | None) -> bool:
    return other is not None and (one is None or one > other)


def _limit(table: TomlTable, key: str, default: int | None, *, most: int = _MAX_COUNT) -> int | None:
    return None if table.is_text(key, UNLIMITED) else table.integer(key, default, 1, most)


def _usd(table: TomlTable, key: str, default: _Amount) -> int | _Amount:
    amount_nanousd = table.nanousd(key, _MAX_USD)
    return default if amount_nanousd is None else amount_nanousd


def _flag(table: TomlTable, key: str, default: bool) -> bool:
    value = table.get(key, bool)
    return default if value is None else value


def _one_of(table: TomlTable, key: str, choices: tuple[_T, ...], default: _T) -> _T:
    value = table.get(key, str)
    if value is None:
        return default
    for choice in choices:
        if value == choice:
            return choice
    raise table.error(key, f"must be one of {', '.join(choices)}, got {quoted(value)}")
