"""Duties go on through failures, tell each once, and do not spin."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tensorage.errors import ChainError, StorageError
from tensorage.service import duty
from tensorage.service.duty import Trouble, repeat, retry_delay
from tensorage.service.lifetime import until

FULL = StorageError("disk is full", remedy="Free space")


def test_waits_double_up_to_a_minute():
    assert [retry_delay(n) for n in (1, 2, 3, 7, 1000)] == [1, 2, 4, 60, 60]


async def test_a_failure_is_told_once_with_its_remedy_and_so_is_its_end(monkeypatch, caplog):
    monkeypatch.setattr(duty, "FIRST_DELAY", 0.001)
    outcomes = iter([FULL, FULL, FULL, StorageError("disk is gone"), None])
    done = asyncio.Event()

    async def work() -> float:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        done.set()
        return 60.0

    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(repeat("filling", work))
        await asyncio.wait_for(done.wait(), 5)
        await asyncio.sleep(0.01)
        task.cancel()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert "filling failed" in told[0] and "disk is full" in told[0] and "Free space" in told[0]
    assert "disk is gone" in told[1]
    assert "filling works again" in told[2]


def test_an_outage_that_words_itself_anew_is_told_once(caplog):
    trouble = Trouble("reading")
    for seconds in range(5):
        trouble.failed(ChainError(f"the next attempt is in {seconds} s"))
    assert len(caplog.records) == 1


async def test_being_asked_again_does_not_wait_for_the_next_time():
    again = asyncio.Event()
    times = []

    async def work() -> float:
        times.append(asyncio.get_running_loop().time())
        return 60.0

    task = asyncio.create_task(repeat("filling", work, again=again))
    await asyncio.sleep(0.02)
    again.set()
    await asyncio.sleep(0.02)
    task.cancel()
    assert len(times) == 2


async def test_a_mistake_of_ours_ends_the_service_with_its_error():
    async def faulty() -> None:
        raise KeyError("a bug")

    async def lasting() -> None:
        await asyncio.sleep(60)

    with pytest.raises(KeyError, match="a bug"):
        await until(asyncio.Event(), {"faulty": faulty(), "lasting": lasting()})


async def test_a_service_ends_its_duties_when_it_is_stopped():
    ended = []

    async def lasting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, stop.set)
    await asyncio.wait_for(until(stop, {"lasting": lasting()}), 5)
    assert ended == [True]
