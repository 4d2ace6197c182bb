"""Tasks that belong together."""

import asyncio

import anyio
import pytest

from tensorage.client.crew import Crew


class Broken(Exception):
    """What one of them fails with."""


async def test_one_that_is_started_later_and_fails_ends_those_that_wait():
    crew, ended = Crew(), []

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waiting")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise Broken

    async def start_others() -> None:
        crew.start(wait_for_ever())
        await asyncio.sleep(0.01)
        crew.start(fail())
        await wait_for_ever()

    crew.start(start_others())
    with anyio.fail_after(5), pytest.raises(Broken):
        await crew.finish()
    assert ended == ["waiting", "waiting"]


async def test_all_are_waited_for():
    crew, ended = Crew(), []

    async def start(left: int) -> None:
        await asyncio.sleep(0.001)
        if left:
            crew.start(start(left - 1))
        ended.append(left)

    crew.start(start(5))
    with anyio.fail_after(5):
        await crew.finish()
    assert sorted(ended) == list(range(6))
