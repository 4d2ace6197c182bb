"""Tasks that belong together: the first that fails ends all of them, and its error is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Crew:
    """A growing set of tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended = asyncio.Event()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have one more."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended.set())

    async def finish(self) -> None:
        """Wait until all have ended, those too that are started meanwhile."""
        try:
            while self._tasks:
                await self._ended.wait()
                self._ended.clear()
                for task in [task for task in self._tasks if task.done()]:
                    self._tasks.remove(task)
                    task.result()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
