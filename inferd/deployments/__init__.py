"""Deployments: the names that callers use, and the replicas that answer."""
