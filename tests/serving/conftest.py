"""Async tests run on asyncio; `provider` is one that is ready and has credit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serving.provider import Provider, running_provider


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    async with running_provider(tmp_path, monkeypatch) as provider:
        yield provider
