"""Fixtures of tests/serving: `provider` is one that is ready and has credit, `call` asks it for a chat."""

from __future__ import annotations

from tests.serving.conftest import anyio_backend, call, provider

__all__ = ["anyio_backend", "call", "provider"]
