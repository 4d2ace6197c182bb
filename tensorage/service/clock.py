"""Whether the time can be believed, for duties that end things for good.

A clock that is put a year ahead, for a minute and by mistake, would end everything that ends within the year.
So after a jump nothing ends for some hours, in which somebody, or NTP, can put the clock right.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

#: Seconds by which a clock may go faster or slower between two looks at it; more is a jump.
JUMP_SECONDS = 900.0
#: Seconds after a jump in which nothing ends.
HOLD_SECONDS = 6 * 3600.0


class EvenClock:
    """Compares the time of day with a clock that cannot be put.

    Args:
        what: ends by it, for the log.
        wall: seconds since 1970.
        steady: seconds, steady.
    """

    def __init__(
        self,
        what: str,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._read = wall, steady
        self._wall, self._steady = wall(), steady()
        self._held_until = self._steady

    def is_even(self) -> bool:
        """Whether the time has gone evenly for a while; to be asked each time before something ends."""
        wall, steady = (read() for read in self._read)
        jump = (wall - self._wall) - (steady - self._steady)
        self._wall, self._steady = wall, steady
        if abs(jump) > JUMP_SECONDS:
            self._held_until = steady + HOLD_SECONDS
            log.warning(
                "the clock jumped, so no %s end for %d hours; check it seconds=%+d",
                self._what,
                HOLD_SECONDS // 3600,
                jump,
            )
        return steady >= self._held_until
