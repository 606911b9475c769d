"""`admin` calls as an operator, whose key belongs to team ops; `manager` with the scope `manage` of acme."""

from __future__ import annotations

import pytest

from tests.server.admin.calls import Admin


@pytest.fixture
def admin(provider):
    return Admin(provider, provider.new_key("ops", scopes=("admin",)))


@pytest.fixture
def manager(provider):
    return Admin(provider, provider.new_key("acme", scopes=("inference", "manage")))
