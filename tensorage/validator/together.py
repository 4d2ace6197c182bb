"""Doing many things at once, a bounded number of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


async def together(jobs: Mapping[K, Callable[[], Awaitable[T]]], at_once: int) -> dict[K, T]:
    """The results of all jobs by key, in the jobs' order. The first error ends the others and is raised."""
    turns = asyncio.Semaphore(at_once)

    async def one(job: Callable[[], Awaitable[T]]) -> T:
        async with turns:
            return await job()

    tasks = {key: asyncio.ensure_future(one(job)) for key, job in jobs.items()}
    try:
        await asyncio.gather(*tasks.values())
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    return {key: task.result() for key, task in tasks.items()}
