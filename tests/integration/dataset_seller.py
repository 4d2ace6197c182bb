"""A seller that does as it is told: raw HTTP over real sockets, with every trick that a test wants.

`Seller.serve(path, body)` puts honest bytes there, with ranges; `trick(path, work)` has a coroutine write
whatever it likes. What was asked and how many bytes of bodies went out is kept.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

PIECE = 64 * 1024


@dataclass
class Asked:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def span(self, size: int) -> tuple[int, int] | None:
        """The range that is asked for, [start, end)."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if found is None:
            return None
        return int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)


Work = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seller:
    """A server on loopback, in a thread of its own. A context manager."""

    files: dict[str, bytes] = field(default_factory=dict)
    tricks: dict[str, Work] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0
    headers: list[str] = field(default_factory=list)

    def __enter__(self) -> Seller:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def begin() -> None:
            self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.create_task(begin())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            asked = Asked(method, target, headers, body)
            self.asked.append(asked)
            work = self.tricks.get(asked.path) or self.honest
            await work(asked, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    async def honest(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        """The file, or the part of it that was asked for."""
        data = self.files.get(asked.path)
        if data is None:
            await self.answer(writer, 404, b'{"error":"unknown_dataset","message":"no such thing"}')
            return
        span = asked.span(len(data))
        if span is None:
            await self.answer(writer, 200, data, self.headers)
            return
        start, end = span
        if start >= len(data):
            await self.answer(writer, 416, b"", [f"Content-Range: bytes */{len(data)}"])
            return
        extra = [f"Content-Range: bytes {start}-{end - 1}/{len(data)}", *self.headers]
        await self.answer(writer, 206, memoryview(data)[start:end], extra)

    async def answer(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        body: bytes | memoryview,
        headers: list[str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        """One whole answer; `length` is what Content-Length says, in place of the truth."""
        size = len(body) if length is None else length
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {size}", "Connection: close", *(headers or [])]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        await self.pour(writer, body)

    async def pour(self, writer: asyncio.StreamWriter, body: bytes | memoryview) -> None:
        """Bytes of a body, counted as the socket takes them."""
        for at in range(0, len(body), PIECE):
            piece = body[at : at + PIECE]
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)
