"""Background work pauses for challenges, once for a run of them."""

from __future__ import annotations

import asyncio

import pytest

from tensorage.miner.priority import Priority


async def test_overlapping_challenges_pause_once_and_work_resumes_after_the_last():
    said: list[str] = []
    priority = Priority(lambda: said.append("pause"), lambda: said.append("resume"))
    with priority.answering():
        with priority.answering():
            assert said == ["pause"]
        await asyncio.sleep(0.4)
        assert said == ["pause"]
    await asyncio.sleep(0.05)
    with priority.answering():
        pass
    assert said == ["pause"]
    await asyncio.sleep(0.4)
    assert said == ["pause", "resume"]


async def test_work_resumes_after_a_challenge_that_failed():
    said: list[str] = []
    priority = Priority(lambda: said.append("pause"), lambda: said.append("resume"))
    with pytest.raises(ValueError), priority.answering():
        raise ValueError
    await asyncio.sleep(0.4)
    assert said == ["pause", "resume"]
