"""The prompts of one call are billed together or not at all."""

from __future__ import annotations

import asyncio

import pytest

from inferd.errors import OverloadedError
from inferd.serving.completion import Completion
from inferd.serving.request_group import RequestGroup

pytestmark = pytest.mark.anyio

STOP = OverloadedError("The server is shutting down.", retry_after_s=5.0)


async def test_stop_between_the_last_end_and_the_turns_of_the_others_cuts_off_none():
    group, first, last = RequestGroup(2), Completion("first"), Completion("last")
    waiting = asyncio.create_task(group.ended(first, failed=False))
    await asyncio.sleep(0)
    assert await group.ended(last, failed=False)
    first.cut(STOP)
    assert await waiting
    assert first.cut_by is None


async def test_stop_before_the_last_end_voids_all():
    group, first, last = RequestGroup(2), Completion("first"), Completion("last")
    waiting = asyncio.create_task(group.ended(first, failed=False))
    await asyncio.sleep(0)
    first.cut(STOP)
    assert not await group.ended(last, failed=False)
    assert not await waiting
