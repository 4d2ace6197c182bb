"""Doing together what several threads want done at once: one flush to disk serves them all.

Whoever comes while others wait joins them; one of them does the work for all, and each gets its own outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ..errors import TensorageError

T = TypeVar("T")

#: The work: what went wrong with each item, None where nothing did, in their order.
Work = Callable[[Sequence[T]], Sequence[TensorageError | None]]


class _Waiting(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False
        self.error: TensorageError | None = None


class Together(Generic[T]):
    """Does `work` for items of any number of threads."""

    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self._turn = threading.Lock()
        self._waiting: list[_Waiting[T]] = []
        self._gate = threading.Lock()

    def do(self, item: T) -> None:
        """Have the work done for `item`; returns when it is.

        Raises:
            TensorageError: what the work says about this item, or about all of them.
        """
        mine = _Waiting(item)
        with self._gate:
            self._waiting.append(mine)
        with self._turn:
            if not mine.done:
                with self._gate:
                    batch, self._waiting = self._waiting, []  # mine is among them
                self._run(batch)
        if mine.error is not None:
            raise mine.error

    def _run(self, batch: list[_Waiting[T]]) -> None:
        try:
            errors = self._work([each.item for each in batch])
        except TensorageError as error:
            errors = [_copy(error) for _ in batch]
        except BaseException:
            for each in batch:
                each.error = TensorageError("the work that this waited for failed")
                each.done = True
            raise
        for each, each_error in zip(batch, errors, strict=True):
            each.error = each_error
            each.done = True


def _copy(error: TensorageError) -> TensorageError:
    """The same error for another thread to raise."""
    same = type(error).__new__(type(error))
    same.__dict__.update(error.__dict__)
    same.args = error.args
    return same
