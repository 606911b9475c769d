"""Terms of a team: plan, tier, caps, budgets, limits and spend counters."""
