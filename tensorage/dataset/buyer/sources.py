"""Where the bytes of a file come from: the owner's server, mirrors, and whoever else has them.

Nobody of them is trusted. A source is asked for a run of bytes and read like a stream; whoever reads checks
every chunk.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

from .ranged import RangeReader, Wanted
from .urls import Address


class Stream(Protocol):
    """A connection to a source, used by one thread; `abort` by any."""

    def begin(self, start: int, end: int) -> None:
        """Have bytes [start, end) of the file come next. Raises SourceFault."""

    def readinto(self, view: memoryview) -> int:
        """Fill a part of `view`; returns how many bytes, 0 at the end. Raises SourceFault."""

    def close(self) -> None:
        """Stop reading; `begin` may follow."""

    def abort(self, reason: str) -> None:
        """Have whoever reads stop at once, with a SourceFault that says `reason`."""


class Source(Protocol):
    """One place to fetch a file from."""

    @property
    def name(self) -> str:
        """What the user knows it by; no two sources of a download have one name."""

    def connect(self, size: int) -> Stream:
        """A stream of the file, which has `size` bytes. Does nothing yet."""


class HttpSource:
    """A file behind a URL.

    Args:
        token: shown to that address only; None for a mirror.
        public_only: it was named by a stranger: dial nothing but public addresses.
        name: what to call it; the address, if it is not given.
    """

    def __init__(
        self,
        address: Address,
        token: str | None = None,
        *,
        query: str = "",
        public_only: bool = False,
        name: str = "",
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        if token is not None and not address.private:
            raise ValueError(f"a token for {address.url}, over plain HTTP")
        self.name = name or address.url
        self._address = address
        self._query = query
        self._token = token
        self._public_only = public_only
        self._context = context

    def reader(self) -> RangeReader:
        """A reader of it, which tells more than a stream."""
        return RangeReader(
            self._address,
            self._token,
            query=self._query,
            public_only=self._public_only,
            context=self._context,
        )

    def connect(self, size: int) -> Stream:
        """A stream of the file."""
        return _HttpStream(self.reader(), size)


class _HttpStream:
    def __init__(self, reader: RangeReader, size: int) -> None:
        self._reader = reader
        self._size = size
        self.readinto = reader.readinto
        self.close = reader.close
        self.abort = reader.abort

    def begin(self, start: int, end: int) -> None:
        self._reader.open(Wanted(start, end, self._size))
