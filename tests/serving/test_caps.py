"""Caps as a caller meets them: 402 with a code of its own, not to be repeated, and an alert."""

from __future__ import annotations

import pytest

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from tests.serving.provider import running_provider

pytestmark = pytest.mark.anyio


async def test_budget_used_up_is_a_402_with_its_code_and_alerts_once(tmp_path, monkeypatch):
    """R7"""
    async with running_provider(tmp_path, monkeypatch) as provider:
        provider.grant(10**9)
        with provider.store.immediate() as conn:
            operations.set_budget(
                conn,
                "acme",
                1,
                owner=operations.BudgetOwner(project="inference"),
                by=operations.Author("test", wall_clock_ms()),
            )
        for _ in range(2):
            response = await provider.chat()
            assert (response.status_code, response.headers["x-should-retry"]) == (402, "false")
            assert response.json()["error"]["code"] == "project_spend_limit_exceeded"
            assert "This limit resets at" in response.json()["error"]["message"]
        await provider.until(lambda: len(provider.rows("alerts")) == 1)
        assert provider.rows("holds") == []
