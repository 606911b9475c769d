"""A provider's customer."""

from __future__ import annotations

import pytest

from tests.serving.batches.customer import Customer


@pytest.fixture
def customer(provider):
    return Customer(provider)
