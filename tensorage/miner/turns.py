"""How much is done at once, in all and for one caller: so that whoever asks for the most makes itself wait.

What goes over a bound is refused at once and not queued: a caller that is told so asks again, and what is
queued would be answered after its deadline. For one event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RequestError


class Turns:
    """Counts what is being done.

    Args:
        what: is being done, for the refusal: "leaves are being read".
        most: units of work at once in all; a piece of work that is larger than that gets no turn.
        each: units for one caller; `each_times` pieces of work for one caller.
    """

    def __init__(self, what: str, *, most: int, each: int, each_times: int) -> None:
        self._what = what
        self._most = most
        self._each = each
        self._each_times = each_times
        self._units: Counter[str] = Counter()
        self._times: Counter[str] = Counter()

    @contextmanager
    def turn(self, caller: str, units: int = 1) -> Iterator[None]:
        """Count a piece of work for the time of a `with` block.

        Raises:
            RequestError: "rate_limited"; it is one too many.
        """
        if self._times[caller] >= self._each_times or self._units[caller] + units > self._each:
            raise RequestError("rate_limited", "your last requests are in hand; ask again soon")
        if self._units.total() + units > self._most:
            raise RequestError("rate_limited", f"as many {self._what} as we can; ask again soon")
        self._times[caller] += 1
        self._units[caller] += units
        try:
            yield
        finally:
            for counter, amount in ((self._times, 1), (self._units, units)):
                counter[caller] -= amount
                if not counter[caller]:
                    del counter[caller]
