"""The prompts of one call are billed together or not at all."""

from __future__ import annotations

import asyncio

import pytest

from inferd.errors import OverloadedError
from inferd.serving.completion import Completion
from inferd.serving.request_group import RequestGroup

pytestmark = pytest.mark.anyio

STOP = OverloadedError("The server is shutting down.", retry_after_s=5.0)


def group_of_two() -> tuple[RequestGroup, Completion]:
    completion = Completion(2)
    return RequestGroup(completion), completion


async def test_group_that_has_ended_is_not_cut_off():
    group, completion = group_of_two()
    waiting = asyncio.create_task(group.ended(failed=False))
    await asyncio.sleep(0)
    assert await group.ended(failed=False)
    completion.cut(STOP)
    assert await waiting
    assert completion.cut_by is None


async def test_group_cut_off_before_its_last_end_is_void():
    group, completion = group_of_two()
    waiting = asyncio.create_task(group.ended(failed=False))
    await asyncio.sleep(0)
    completion.cut(STOP)
    assert not await group.ended(failed=False)
    assert not await waiting
