"""Deployments: the names that callers use, and what answers behind them."""
