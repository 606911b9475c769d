"""Commands for credits, budgets, plans, usage and statements."""
