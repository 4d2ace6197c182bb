"""Challenges first: background work waits while one is being answered.

The disk and the cores belong to whoever has a deadline. `answering` marks a challenge; the first one calls
`pause`, and `resume` follows a moment after the last, so that a run of challenges does not make the workers
stop and go. Whoever asks without end must not keep a damaged sector from being sealed again: after half a
minute without a break the work goes on for a while beside the answers.

Work for clients, who wait for it, is not paused: each step of it gives way to the challenges that are being
answered, for a moment at most (`give_way`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

LINGER = 0.25  # seconds
LONGEST_PAUSE = 30.0
BREAK = 10.0
GIVE_WAY = 0.25


class Priority:
    """Counts the challenges that are being answered. For one event loop.

    Args:
        pause, resume: tell the background work; called on the event loop, so they must not block.
        linger: seconds between the last answer and `resume`.
        longest, break_for: seconds of pause after which the work goes on in any case, and for how long.
        give_way: seconds that a step of clients' work waits at most.
    """

    def __init__(
        self,
        pause: Callable[[], None],
        resume: Callable[[], None],
        *,
        linger: float = LINGER,
        longest: float = LONGEST_PAUSE,
        break_for: float = BREAK,
        give_way: float = GIVE_WAY,
    ) -> None:
        self._pause = pause
        self._resume = resume
        self._linger = linger
        self._longest = longest
        self._break_for = break_for
        self._give_way = give_way
        self._answering = 0
        self._free = asyncio.Event()
        self._free.set()
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None  # to the end of the pause
        self._limit: asyncio.TimerHandle | None = None  # to the break, or to its end

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Hold background work back for the time of a `with` block."""
        self._answering += 1
        self._free.clear()
        self._hold()
        try:
            yield
        finally:
            self._answering -= 1
            if self._answering == 0:
                self._free.set()
            if self._answering == 0 and self._paused:
                self._timer = asyncio.get_running_loop().call_later(self._linger, self._release)

    async def give_way(self) -> None:
        """Wait while a challenge is being answered, but not for long."""
        if not self._free.is_set():
            with anyio.move_on_after(self._give_way):
                await self._free.wait()

    def _hold(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._paused and self._limit is None:
            self._paused = True
            self._pause()
            self._limit = asyncio.get_running_loop().call_later(self._longest, self._begin_break)

    def _release(self) -> None:
        self._timer = None
        self._paused = False
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        self._resume()

    def _begin_break(self) -> None:
        self._paused = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._limit = asyncio.get_running_loop().call_later(self._break_for, self._end_break)
        self._resume()

    def _end_break(self) -> None:
        self._limit = None
        if self._answering:
            self._hold()
