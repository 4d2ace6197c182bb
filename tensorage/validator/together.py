"""Doing many things at once, a bounded number of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


async def together(
    jobs: Mapping[K, Callable[[], Awaitable[T]]], at_once: int, *, within: float | None = None
) -> dict[K, T]:
    """The results of all jobs by key, in the jobs' order. The first error ends the others and is raised.

    Args:
        within: seconds; jobs that are not done by then are given up and have no result.
    """
    turns = asyncio.Semaphore(at_once)

    async def one(job: Callable[[], Awaitable[T]]) -> T:
        async with turns:
            return await job()

    tasks = {key: asyncio.ensure_future(one(job)) for key, job in jobs.items()}
    if not tasks:
        return {}
    try:
        done, _ = await asyncio.wait(tasks.values(), timeout=within, return_when=asyncio.FIRST_EXCEPTION)
        return {key: task.result() for key, task in tasks.items() if task in done}
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
