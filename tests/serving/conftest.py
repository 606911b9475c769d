"""Async tests run on asyncio; `provider` is one that is ready and has credit, `call` asks it for a chat completion."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.asgi_call import AsgiCall
from tests.serving.provider import Provider, chat_body, running_provider


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    async with running_provider(tmp_path, monkeypatch) as provider:
        yield provider


@pytest.fixture
def call() -> Callable[..., AsgiCall]:
    def make(provider: Provider, **fields: Any) -> AsgiCall:
        headers = {"authorization": f"Bearer {provider.key}", "content-type": "application/json"}
        body = json.dumps(chat_body(**fields)).encode()
        return AsgiCall(provider.app, "POST", "/v1/chat/completions", headers=headers, body=body)

    return make
