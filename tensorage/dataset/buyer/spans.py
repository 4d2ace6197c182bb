"""Who fetches which chunks: the state of one download, and the only place where that is decided.

Rules. A worker takes a span: consecutive chunks that nobody has, fetched in order as one stream. When no
chunk is free any more, it takes the second half of the longest span that is under way, whose end moves up;
and when all that is left is in flight, it fetches one such chunk a second time, once, so that the slowest
source does not decide when a download ends. What a worker gives up is free again. A chunk is done once.

Pure: no clock, no thread, no network. Whoever shares it between threads locks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Chunks that a worker takes at once where others work too, so that they stay close to each other.
SPAN_CHUNKS = 16


@dataclass(eq=False)
class Span:
    """Chunks [at, end) that one worker fetches; `at` is in flight. Another may move `end` up."""

    at: int
    end: int
    worker: str
    twin: bool = False


class Spans:
    """The chunks of one file.

    Args:
        have: for each chunk, whether it is there already.
    """

    def __init__(self, have: Sequence[bool]) -> None:
        self._have = bytearray(have)
        self.left = len(have) - sum(self._have)
        self._free: list[tuple[int, int]] = []  # runs [start, end), the first one last
        self._under_way: list[Span] = []
        self._release(0, len(have))

    def has(self, index: int) -> bool:
        """Whether a chunk is done."""
        return bool(self._have[index])

    def take(self, worker: str, *, most: int | None = SPAN_CHUNKS) -> Span | None:
        """What `worker` shall fetch now; None while there is nothing that it could help with.

        Args:
            most: chunks at most; None for as many as follow each other.
        """
        span = self._next(worker, most) or self._half(worker) or self._twin(worker)
        if span is not None:
            self._under_way.append(span)
        return span

    def done(self, span: Span) -> bool:
        """The chunk in flight has come, and is right; returns whether it is the first time."""
        index = span.at
        if not span.at < span.end:
            raise ValueError(f"nothing of this span is in flight at {span.at}")
        first = not self._have[index]
        if first:
            self._have[index] = 1
            self.left -= 1
        span.at += 1
        if span.at >= span.end:
            self._under_way.remove(span)
        return first

    def give_up(self, span: Span) -> None:
        """What is left of a span is free again; a span that is done is left alone."""
        if span in self._under_way:
            self._under_way.remove(span)
            self._release(span.at, span.end)

    def _next(self, worker: str, most: int | None) -> Span | None:
        if not self._free:
            return None
        start, end = self._free.pop()
        if most is not None and end - start > most:
            self._free.append((start + most, end))
            end = start + most
        return Span(start, end, worker)

    def _half(self, worker: str) -> Span | None:
        longest = max(self._under_way, key=lambda span: span.end - span.at, default=None)
        if longest is None or longest.end - longest.at < 2:
            return None
        middle = longest.at + (longest.end - longest.at + 1) // 2
        span = Span(middle, longest.end, worker)
        longest.end = middle
        return span

    def _twin(self, worker: str) -> Span | None:
        tried = {span.at for span in self._under_way if span.twin or span.worker == worker}
        for span in self._under_way:
            if span.at not in tried and not self._have[span.at]:
                return Span(span.at, span.at + 1, worker, twin=True)
        return None

    def _release(self, start: int, end: int) -> None:
        """Make what is missing of [start, end), and nobody else fetches, free."""
        runs = []
        index = start
        while index < end:
            if self._have[index] or any(span.at <= index < span.end for span in self._under_way):
                index += 1
                continue
            first = index
            taken = min((span.at for span in self._under_way if span.at > index), default=end)
            while index < min(end, taken) and not self._have[index]:
                index += 1
            runs.append((first, index))
        self._free = sorted([*self._free, *runs], reverse=True)
