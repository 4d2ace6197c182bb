"""Work beside timed challenges."""

from __future__ import annotations

import asyncio

import anyio

from tensorage.service import quiet
from tensorage.service.quiet import Quiet


async def test_no_step_begins_while_challenges_are_timed_and_timing_waits_for_steps_under_way():
    calm, told = Quiet(), []

    async def step(name: str, seconds: float) -> None:
        async with calm.aside():
            told.append(f"{name} begins")
            await asyncio.sleep(seconds)
            told.append(f"{name} ends")

    first = asyncio.create_task(step("first", 0.05))
    await asyncio.sleep(0.01)

    async def timing() -> None:
        async with calm.timed():
            told.append("timing")
            await asyncio.sleep(0.05)
            told.append("timed")

    timed = asyncio.create_task(timing())
    await asyncio.sleep(0.01)
    second = asyncio.create_task(step("second", 0))
    await asyncio.gather(first, timed, second)
    assert told == ["first begins", "first ends", "timing", "timed", "second begins", "second ends"]


async def test_a_step_that_does_not_end_holds_nobody_up_for_long(monkeypatch):
    monkeypatch.setattr(quiet, "PATIENCE", 0.05)
    calm = Quiet()

    async def endless() -> None:
        async with calm.aside():
            await asyncio.sleep(60)

    task = asyncio.create_task(endless())
    await asyncio.sleep(0.01)
    with anyio.fail_after(5):
        async with calm.timed():
            assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
