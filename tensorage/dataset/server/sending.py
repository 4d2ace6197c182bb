"""Sends bytes of a file that nobody may alter meanwhile, with memory that does not depend on its size.

Pieces of 1 MiB are read in threads of their own, one ahead of the one that is on its way: the event loop
never waits for a disk, and no piece is handed on before the last one has left. On loopback that is as fast
as nginx with sendfile (docs/decisions/0016), and it is the same with TLS.

Before every piece the descriptor is looked at: a file whose inode, size or times are no longer those that
were there when its hash was checked ends the answer, visibly incomplete. So does a peer that takes no piece
for a while, and one that has gone; and, looked at every 8 MiB, a token that was revoked or has expired.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from starlette.responses import Response

from ...errors import RequestError, StorageError
from ...transport.gate import Receive, Scope, Send
from .ranges import Span

logger = logging.getLogger(__name__)

PIECE = 1 << 20
_SMALL_PIECE = 1 << 18
#: Pieces after which it is asked again whether the peer may have more.
_CHECKED = 8


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells that a file was written to: any write alters one of these, and ctime cannot be set back."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        """The stamp in what stat(2) found."""
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class OpenFile:
    """An open file that has a stamp. Safe from several threads."""

    def __init__(self, fd: int, stamp: Stamp) -> None:
        self._fd: int | None = fd
        self._stamp = stamp
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`.

        Raises:
            StorageError: the file was altered or closed, or cannot be read.
        """
        with self._lock:
            if self._fd is None:
                raise StorageError("an artifact was closed while it was being read")
            try:
                altered = Stamp.of(os.fstat(self._fd)) != self._stamp
                data = b"" if altered else os.pread(self._fd, size, offset)
            except OSError as error:
                raise StorageError(f"an artifact cannot be read: {error.strerror}") from error
        if len(data) != size:
            raise StorageError("an artifact was altered while it was being sent")
        return data

    def close(self) -> None:
        """Close it, once what is being read has been; safe to call twice."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None


#: Literal bytes, or a span of the file.
Part = bytes | Span


def multipart(spans: Sequence[Span], total: int, content_type: str, boundary: str) -> list[Part]:
    """The body of a multipart/byteranges answer (RFC 9110, 14.6)."""
    parts: list[Part] = []
    for span in spans:
        head = f"--{boundary}\r\ncontent-type: {content_type}\r\ncontent-range: {span.content_range(total)}"
        parts += [f"{head}\r\n\r\n".encode("ascii"), span, b"\r\n"]
    return [*parts, f"--{boundary}--\r\n".encode("ascii")]


def length(parts: Sequence[Part]) -> int:
    """The bytes of a body."""
    return sum(part.size if isinstance(part, Span) else len(part) for part in parts)


class BytesResponse(Response):
    """An answer of bytes that are kept anyway, handed to the connection only as fast as the peer takes them.

    Args:
        alive: called when the peer has taken a piece; gives the answer more time.
        ended: called at the end, however it comes.
    """

    def __init__(
        self,
        content: bytes,
        headers: dict[str, str],
        alive: Callable[[], None],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(None, 200, {**headers, "content-length": str(len(content))})
        self._content = content
        self._alive = alive
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._send(scope, send)
        finally:
            self._ended()

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            for start in range(0, len(self._content), _SMALL_PIECE):
                piece = self._content[start : start + _SMALL_PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self._alive()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class FileResponse(Response):
    """An answer whose body is literal bytes and spans of a file.

    Args:
        file: closed when the answer has ended, however it does.
        reading: reads the pieces.
        alive: called when the peer has taken a piece; gives the answer more time.
        ended: called at the end with what was handed to the connection.
        still: raises RequestError when the peer may have no more.
    """

    def __init__(
        self,
        file: OpenFile,
        parts: Sequence[Part],
        *,
        status_code: int,
        headers: dict[str, str],
        reading: Executor,
        alive: Callable[[], None],
        ended: Callable[[list[Span]], None],
        still: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(None, status_code, {**headers, "content-length": str(length(parts))})
        self._file = file
        self._parts = parts
        self._reading = reading
        self._alive = alive
        self._ended = ended
        self._still = still

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent: list[Span] = []
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if scope["method"] == "HEAD" or await self._send_body(send, gone, sent):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (
            StorageError,
            RequestError,
        ) as error:  # the answer has begun: all that is left is to break it off
            logger.error("download broken off: %s", error)  # noqa: TRY400 - the line says all
        finally:
            gone.cancel()
            self._ended(sent)
            self._reading.submit(self._file.close)  # may have to wait for a piece that is being read

    async def _send_body(self, send: Send, gone: asyncio.Future[None], sent: list[Span]) -> bool:
        """Send the parts; False when the peer has gone."""
        pieces = _pieces(self._parts)
        piece = next(pieces, None)
        ahead = self._begin(piece)
        count = 0
        while piece is not None and not gone.done():
            count += 1
            if count % _CHECKED == 0:
                await self._still()
            data = piece if isinstance(piece, bytes) else await ahead
            following = next(pieces, None)
            ahead = self._begin(following)
            await send({"type": "http.response.body", "body": data, "more_body": True})
            self._alive()
            if isinstance(piece, Span):
                _extend(sent, piece)
            piece = following
        return not gone.done()

    def _begin(self, piece: Part | None) -> asyncio.Future[bytes]:
        """Begin to read a piece, if it is to be read."""
        loop = asyncio.get_running_loop()
        if not isinstance(piece, Span):
            return loop.create_future()
        reading = loop.run_in_executor(self._reading, self._file.read, piece.first, piece.size)
        reading.add_done_callback(_looked_at)
        return reading


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _looked_at(reading: asyncio.Future[bytes]) -> None:
    """What went wrong in a piece that nobody waits for any more is no news."""
    if not reading.cancelled():
        reading.exception()


def _pieces(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        for first in range(part.first, part.last + 1, PIECE):
            yield Span(first, min(first + PIECE - 1, part.last))


def _extend(spans: list[Span], piece: Span) -> None:
    if spans and spans[-1].last + 1 == piece.first:
        spans[-1] = Span(spans[-1].first, piece.last)
    else:
        spans.append(piece)
