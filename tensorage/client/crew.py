"""Tasks that belong together: the first that fails ends all of them, and its error is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Crew:
    """A growing set of tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have one more."""
        self._tasks.add(asyncio.create_task(work))

    async def finish(self) -> None:
        """Wait until all have ended, those too that others start meanwhile."""
        try:
            while self._tasks:
                done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                if any(task.exception() is not None for task in done):
                    break
                self._tasks -= done
        finally:
            for task in self._tasks:
                task.cancel()
            ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome
