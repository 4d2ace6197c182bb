"""How a service begins, runs its duties, and ends.

SIGTERM and SIGINT ask it to leave, and `LEAVE_SECONDS` later the process is gone, whatever hangs: state is on
the disk after every step, so that leaving at once is as safe as being killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ..errors import ChainError, UsageError

log = logging.getLogger(__name__)

DRAIN_SECONDS = 2.0  # for answers that are under way
LEAVE_SECONDS = 4.5

T = TypeVar("T")


async def required(asked: Awaitable[T]) -> T:
    """What a chain must tell at the start.

    Raises:
        UsageError: it does not answer.
    """
    try:
        return await asked
    except ChainError as error:
        raise UsageError(error.message, remedy=error.remedy) from error


async def until(stop: asyncio.Event, duties: dict[str, Coroutine[Any, Any, None]]) -> None:
    """Run duties, which never end, until `stop` is set; one that fails ends all, and its error is raised."""
    tasks = [asyncio.create_task(duty, name=name) for name, duty in duties.items()]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        for task in (*tasks, stopped):
            task.cancel()
        await asyncio.gather(*tasks, stopped, return_exceptions=True)


async def serve(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a service until SIGTERM or SIGINT sets the event that it is given."""
    stop = asyncio.Event()

    def leave() -> None:
        stop.set()
        last = threading.Timer(LEAVE_SECONDS, _give_up)
        last.daemon = True
        last.start()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    try:
        await run(stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _give_up() -> None:
    log.error("not ended in time seconds=%.1f remedy=%r", LEAVE_SECONDS, "Check the disks for errors")
    os._exit(1)
