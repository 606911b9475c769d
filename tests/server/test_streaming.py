"""A stream's response by itself: when its reader counts as gone, and that it says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from inferd.server.streaming import EventStream

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("stuck_at", range(4), ids=["headers", "first event", "second event", "end"])
async def test_a_reader_who_takes_nothing_is_given_up_wherever_the_stream_is(monkeypatch, stuck_at: int) -> None:
    monkeypatch.setattr(EventStream, "send_timeout_s", 0.02)
    sent: list[Message] = []
    ends: list[str] = []

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: 1\n\n"
            yield b"data: 2\n\n"
        finally:
            ends.append("events")

    async def send(message: Message) -> None:
        if len(sent) == stuck_at:
            await asyncio.Event().wait()
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("nobody hangs up")

    stream = EventStream(events(), lambda _: (), lambda: ends.append("response"), {})
    async with asyncio.timeout(10):
        await stream({"type": "http", "method": "POST"}, receive, send)
    assert len(sent) == stuck_at
    assert ends == ["events", "response"] if stuck_at else ends[-1] == "response"
