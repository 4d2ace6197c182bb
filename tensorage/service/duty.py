"""Work that a service repeats for ever, through any failure that is not its own mistake.

A failure is logged once, with its remedy, and again only when it changes; its end is logged too. Between
failures the wait doubles up to a minute, so nothing spins. What is no TensorageError, OSError or
sqlite3.Error is a mistake in the program and is not caught.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable

import anyio

from ..errors import ChainError, TensorageError

log = logging.getLogger(__name__)

FIRST_DELAY = 1.0  # seconds
LONGEST_DELAY = 60.0

#: What may go wrong around a service: peers, chain, disk, database.
FAILURES: tuple[type[Exception], ...] = (TensorageError, OSError, sqlite3.Error)


def retry_delay(failures: int) -> float:
    """Seconds to wait after `failures` failures in a row."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))


class Trouble:
    """What is wrong with one duty at the moment, told to the operator once.

    Args:
        duty: its name in the log.
    """

    def __init__(self, duty: str) -> None:
        self._duty = duty
        self._said = ""
        self._since = 0.0
        self.failures = 0

    def failed(self, error: Exception) -> float:
        """Take note of a failure; the seconds to wait before the next attempt."""
        self.failures += 1
        if self.failures == 1:
            self._since = time.monotonic()
        what = str(error.message if isinstance(error, TensorageError) else error) or type(error).__name__
        # An outage of the chain words itself anew with every attempt.
        cause = type(error).__name__ if isinstance(error, ChainError) else what
        if cause != self._said:
            self._said = cause
            remedy = error.remedy if isinstance(error, TensorageError) else ""
            log.warning("%s failed, and is tried again error=%r remedy=%r", self._duty, what, remedy)
        return retry_delay(self.failures)

    def worked(self) -> None:
        """Take note that it worked."""
        if self.failures:
            log.info("%s works again after_s=%.0f", self._duty, time.monotonic() - self._since)
        self.failures, self._said = 0, ""


async def repeat(
    duty: str, work: Callable[[], Awaitable[float]], *, again: asyncio.Event | None = None
) -> None:
    """Do `work` until cancelled; it returns the seconds to wait until the next time.

    Args:
        again: once set, the next time is now, unless the last one failed.
    """
    trouble = Trouble(duty)
    again = again or asyncio.Event()
    while True:
        try:
            wait = await work()
        except FAILURES as error:
            await asyncio.sleep(trouble.failed(error))
        else:
            trouble.worked()
            with anyio.move_on_after(wait):
                await again.wait()
            again.clear()
