"""Background work pauses for challenges, once for a run of them, and never for ever."""

from __future__ import annotations

import asyncio

import pytest

from tensorage.miner.priority import Priority

NEVER = 600.0


def priority_with(**times: float) -> tuple[Priority, list[str]]:
    said: list[str] = []
    return Priority(lambda: said.append("pause"), lambda: said.append("resume"), **times), said


async def until(condition, seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


async def test_overlapping_challenges_pause_once():
    priority, said = priority_with(linger=NEVER)
    with priority.answering():
        with priority.answering():
            assert said == ["pause"]
        await asyncio.sleep(0.05)
    with priority.answering():
        pass
    assert said == ["pause"]


async def test_work_resumes_after_the_last_challenge_also_if_it_failed():
    priority, said = priority_with(linger=0.01)
    for _ in range(2):
        said.clear()
        with pytest.raises(ValueError), priority.answering():
            raise ValueError
        await until(lambda: said == ["pause", "resume"])


async def test_who_asks_without_end_does_not_stop_the_work_for_ever():
    priority, said = priority_with(linger=NEVER, longest=0.05, break_for=0.05)
    with priority.answering():
        await until(lambda: said[:4] == ["pause", "resume", "pause", "resume"])
    await until(lambda: said[-1] == "resume")


async def test_a_break_ends_without_a_pause_when_nobody_asks():
    priority, said = priority_with(linger=0.01, longest=0.02, break_for=0.02)
    with priority.answering():
        await until(lambda: "resume" in said)
    await until(lambda: said[-1] == "resume")
    said.clear()
    await asyncio.sleep(0.1)
    assert said == []
    with priority.answering():
        assert said[:1] == ["pause"]


async def test_a_step_for_a_client_gives_way_to_a_challenge_but_not_for_long():
    priority, _ = priority_with(give_way=NEVER)
    await asyncio.wait_for(priority.give_way(), 5)
    with priority.answering():
        step = asyncio.ensure_future(priority.give_way())
        await asyncio.sleep(0.05)
        assert not step.done()
    await asyncio.wait_for(step, 5)
    hasty, _ = priority_with(give_way=0.02)
    with hasty.answering():
        await asyncio.wait_for(hasty.give_way(), 5)
