"""Handlers of the HTTP endpoints."""
