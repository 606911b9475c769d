"""[plans.*] and [tiers.*]: what is shipped, what a models.toml changes of it, and what makes no sense."""

from __future__ import annotations

import re

import pytest

from inferd.config.models_file import load_catalog, load_config
from inferd.errors import ConfigError
from inferd.money import parse_usd
from inferd.plans import SHIPPED


def catalog(tmp_path, text):
    path = tmp_path / "models.toml"
    path.write_text(text)
    return load_catalog(path)


def test_shipped_catalog_equals_the_table_of_the_rules():
    """R1, R2, R10, R15."""
    numbers = [
        (tier.rpm, tier.free_rpm, tier.max_output_tokens, tier.monthly_nanousd, tier.token_rate_ceiling)
        for tier in SHIPPED.tiers
    ]
    assert numbers == [
        (60, 60, 4_096, None, 1),
        (100, 60, 16_384, parse_usd("50"), 1),
        (1_000, 1_000, 16_384, parse_usd("500"), 2),
        (5_000, 5_000, 32_768, parse_usd("5000"), 5),
        (10_000, 10_000, 65_536, parse_usd("50000"), 10),
        (None, None, None, None, None),
    ]
    assert [(tier.rpm_min, tier.free_rpm_min) for tier in SHIPPED.tiers] == [(10, 10), *[(None, None)] * 5]
    assert {(tier.prompt_tpm, tier.uncached_prompt_tpm, tier.generated_tpm) for tier in SHIPPED.tiers} == {
        (3_600_000, 900_000, 36_000)
    }
    plans = {
        name: (plan.cap_nanousd, plan.cap_period, plan.overage, plan.tier_floor, plan.signup_nanousd)
        for name, plan in SHIPPED.plans.items()
    }
    assert plans == {
        "free": (parse_usd("100"), "month", "block", 0, parse_usd("5")),
        "academic": (parse_usd("100"), "month", "block", 1, 0),
        "pro": (parse_usd("6000"), "month", "postpaid", 4, 0),
        "enterprise": (parse_usd("700000"), "year", "contact", 5, 0),
    }
    assert {(plan.project_concurrency, plan.user_concurrency) for plan in SHIPPED.plans.values()} == {(64, 64)}
    bounds = {(plan.max_projects, plan.max_users, plan.max_keys) for plan in SHIPPED.plans.values()}
    assert bounds == {(100, 10_000, 1_000)}


def test_file_without_plans_has_the_shipped_plans(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text("")
    assert load_config(path, {}).catalog == load_catalog(path) == SHIPPED


def test_table_changes_only_its_keys(tmp_path):
    changed = catalog(tmp_path, "[plans.free]\nsignup_credit_usd = 0.5\n[tiers.1]\nrpm = 200\n")
    free, tier = changed.plans["free"], changed.tiers[1]
    assert (free.signup_nanousd, free.cap_nanousd) == (parse_usd("0.5"), parse_usd("100"))
    assert (tier.rpm, tier.free_rpm) == (200, 60)
    assert changed.tiers[2:] == SHIPPED.tiers[2:]


def test_new_plan_reads_every_key(tmp_path):
    text = """
    [plans.course]
    yearly_cap_usd = 20
    overage = "contact"
    tier_floor = 1
    signup_credit_usd = 1
    included_credit_usd = 2.5
    included_every = "month"
    included_valid_days = 31
    payment_method_required = true
    project_concurrency = 3
    user_concurrency = "unlimited"
    """
    plan = catalog(tmp_path, text).plans["course"]
    assert (plan.cap_nanousd, plan.cap_period, plan.overage, plan.tier_floor) == (parse_usd("20"), "year", "contact", 1)
    assert (plan.signup_nanousd, plan.included_nanousd) == (parse_usd("1"), parse_usd("2.5"))
    assert (plan.included_every, plan.included_valid_days) == ("month", 31)
    assert (plan.payment_method_required, plan.project_concurrency, plan.user_concurrency) == (True, 3, None)


def test_tier_reads_every_key(tmp_path):
    text = """
    [tiers.2]
    rpm = 300
    rpm_min = 150
    free_rpm = "unlimited"
    max_output_tokens = 20000
    monthly_usd = 60.5
    qualifying_usd = 51
    prompt_tpm = 7
    uncached_prompt_tpm = 6
    generated_tpm = 5
    token_rate_ceiling = 3
    batch_queued_tokens = "unlimited"
    [tiers.3]
    free_rpm = "unlimited"
    batch_queued_tokens = "unlimited"
    [tiers.4]
    free_rpm = "unlimited"
    batch_queued_tokens = "unlimited"
    """
    tier = catalog(tmp_path, text).tiers[2]
    assert (tier.rpm, tier.rpm_min, tier.free_rpm, tier.max_output_tokens) == (300, 150, None, 20_000)
    assert (tier.monthly_nanousd, tier.qualifying_nanousd) == (parse_usd("60.5"), parse_usd("51"))
    assert (tier.prompt_tpm, tier.uncached_prompt_tpm, tier.generated_tpm) == (7, 6, 5)
    assert (tier.token_rate_ceiling, tier.batch_queued_tokens) == (3, None)


def test_unlimited_tier_0_is_not_adaptive(tmp_path):
    text = "\n".join(f'[tiers.{number}]\nrpm = "unlimited"' for number in range(5))
    tier = catalog(tmp_path, text).tiers[0]
    assert (tier.rpm, tier.rpm_min) == (None, None)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[plans.Gold]\nmonthly_cap_usd = 1", "[plans] Gold: a name has 1 to 64 lower-case letters"),
        ("[plans.gold]\n", "[plans.gold] monthly_cap_usd: is missing"),
        ("[plans.free]\nmonthly_cap_usd = 1\nyearly_cap_usd = 1", "[plans.free] yearly_cap_usd: a plan has one cap"),
        ("[plans.free]\nmonthly_cap_usd = -1", "[plans.free] monthly_cap_usd: an amount cannot be negative"),
        ("[plans.free]\nmonthly_cap_usd = 0.0000000001", "monthly_cap_usd: must have at most 9 decimals"),
        ("[plans.free]\nmonthly_cap_usd = 1000000001", "monthly_cap_usd: must be at most 1000000000 USD"),
        ('[plans.free]\nmonthly_cap_usd = "1"', "monthly_cap_usd: expected a number"),
        ("[plans.free]\ncap = 1", "[plans.free] cap: unknown key"),
        ('[plans.free]\noverage = "postpay"', "overage: must be one of block, postpaid, contact"),
        ("[plans.free]\ntier_floor = 6", "tier_floor: must lie between 0 and 5"),
        ("[plans.free]\nincluded_valid_days = 3", "included_valid_days: needs included_credit_usd"),
        ('[plans.free]\nincluded_every = "month"', "included_every: needs included_credit_usd"),
        ("[plans.free]\nproject_concurrency = 0", "project_concurrency: must lie between 1 and"),
        ("[plans]\nfree = 1", "[plans] free: expected a table"),
        ("[tiers.6]\nrpm = 1", "[tiers] 6: unknown tier; a tier is 0 to 5"),
        ("[tiers.0]\nmonthly_usd = 1", "monthly_usd: must not be set for tier 0"),
        ("[tiers.1]\nqualifying_usd = 1", "qualifying_usd: must not be set for tier 1"),
        ("[tiers.5]\nqualifying_usd = 1", "qualifying_usd: must not be set for tier 5"),
        ("[tiers.3]\nqualifying_usd = 50", "[tiers.3] qualifying_usd: must be more than that of tier 2"),
        ("[tiers.2]\nqualifying_usd = 0", "[tiers.2] qualifying_usd: must be more than 0"),
        ("[tiers.3]\nrpm = 999", "[tiers.3] rpm: must be at least that of tier 2"),
        ("[tiers.2]\nmax_output_tokens = 100", "[tiers.2] max_output_tokens: must be at least that of tier 1"),
        ("[tiers.4]\nmonthly_usd = 1", "[tiers.4] monthly_usd: must be at least that of tier 3"),
        ("[tiers.0]\nrpm = 5", "[tiers.0] rpm: must be at least rpm_min (10), got 5"),
        ("[tiers.5]\nrpm_min = 5", "[tiers.5] rpm_min: must not be set if rpm is unlimited"),
        ('[tiers.1]\nrpm = "none"', "[tiers.1] rpm: expected an integer, got a string"),
    ],
)
def test_invalid_value_names_table_and_key(tmp_path, text, what):
    with pytest.raises(ConfigError, match=re.escape(what)):
        catalog(tmp_path, text)
