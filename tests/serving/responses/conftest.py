"""`memory`: providers of these tests keep responses for 30 days, and reuse prefixes."""

from __future__ import annotations

import functools

import pytest

from tests.serving import provider as providers
from tests.serving.provider import TEMPLATE, FakeModel, Provider


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(providers, "MAX_CONTEXT", 8192)
    monkeypatch.setattr(providers, "DEFAULT_MAX_TOKENS", 200)
    monkeypatch.setattr(Provider, "responses_days", 30)
    monkeypatch.setattr(Provider, "reuses", True)
    # An answer is rendered in the next turn as it was generated, as by the templates of most models.
    template = TEMPLATE.replace("assistant:", "assistant{{ '\\n' }}")
    monkeypatch.setattr(providers, "FakeModel", functools.partial(FakeModel, template))
