"""Slots go to the team that has the fewest."""

from __future__ import annotations

import asyncio

import pytest

from inferd.serving.batches.batch_context import Slots

pytestmark = pytest.mark.anyio


async def test_slot_goes_to_the_team_with_the_fewest():
    slots, got = Slots(4), []

    async def take(team):
        await slots.take(team)
        got.append(team)

    tasks = [asyncio.create_task(take(team)) for team in ["a"] * 8 + ["b"] * 3]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert got == ["a"] * 4
    for _ in range(3):
        slots.give_back("a")
        await asyncio.sleep(0)
    assert got == ["a"] * 4 + ["b"] * 2 + ["a"]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_slot_is_not_taken_by_a_cancelled_wait():
    slots = Slots(1)
    await slots.take("a")
    waiting = asyncio.create_task(slots.take("b"))
    await asyncio.sleep(0)
    slots.give_back("a")  # it is b's now, who does not know yet
    waiting.cancel()
    await asyncio.wait([waiting])
    async with asyncio.timeout(5):
        await slots.take("c")
