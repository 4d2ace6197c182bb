"""Challenges first: background work waits while one is being answered.

The disk and the cores belong to whoever has a deadline. `answering` marks a challenge; the first one calls
`pause`, and `resume` follows a moment after the last, so that a run of challenges does not make the workers
stop and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINGER = 0.25  # seconds


class Priority:
    """Counts the challenges that are being answered. For one event loop.

    Args:
        pause, resume: tell the background work; called on the event loop, so they must not block.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._answering = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Hold background work back for the time of a `with` block."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._answering == 0:
            self._pause()
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            if self._answering == 0:
                self._timer = asyncio.get_running_loop().call_later(_LINGER, self._over)

    def _over(self) -> None:
        self._timer = None
        self._resume()
