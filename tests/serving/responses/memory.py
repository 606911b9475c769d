"""A provider that keeps responses, and OpenAI's SDK that asks it over a socket."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai

from tests.server.transport.test_server import served_on_socket
from tests.serving.provider import PacedRunner, Provider, running_provider

ANSWER = "Blue, they say."


@asynccontextmanager
async def asked(tmp_path: Any, monkeypatch: Any, text: str = ANSWER) -> AsyncIterator[tuple[Provider, Any]]:
    make_runner = functools.partial(PacedRunner, answer=text.encode())
    async with (
        running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider,
        served_on_socket(provider) as served,
        client_of(served, provider.key) as client,
    ):
        yield provider, client


def files(provider: Provider) -> list[str]:
    """Return the names of all files of responses."""
    return sorted(path.name for path in (provider.data_dir / "responses").glob("*/*"))


def client_of(served: Any, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key=key, max_retries=0)
