"""A part of a file over HTTP, as a stream of bytes that stands where it was asked for (RFC 9110, section 14).

Rules. Nothing is followed, decompressed or believed: an answer is 206 with exactly the range that was asked
for of exactly the file's size, or, from byte 0, 200 with that size. A token goes to the address that it was
given for and nowhere else. Whoever waits for a source can end that from another thread, whatever it does.

The standard library's client reads from the socket straight into the caller's buffer, without the copies of a
client made for messages; with TLS, that is all that is read at once.
"""

from __future__ import annotations

import http.client
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from ...transport.addresses import is_public
from .faults import SourceFault
from .urls import Address

CONNECT_SECONDS = 10.0
#: Without a single byte for so long, a source is gone.
STALL_SECONDS = 30.0
_PIECE = 256 * 1024
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.ASCII)
_MOST_WAIT = 30.0
_MOST_ADDRESSES = 4
_TICK = 0.1
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Wanted:
    """Bytes [start, end) of a file of `size` bytes."""

    start: int
    end: int
    size: int


class RangeReader:
    """Asks one address, over one connection. `abort` may be called by any thread, the rest by one.

    Args:
        query: what follows the ? of the URL.
        token: sent as a bearer token; None for a mirror.
        public_only: dial no address that is not globally routable.
        context: makes the TLS context, for https.

    Attributes:
        validator: the strong ETag of the last answer, or its Last-Modified; None where it had neither.
    """

    def __init__(
        self,
        address: Address,
        token: str | None,
        *,
        query: str = "",
        public_only: bool = False,
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._address = address
        self._target = (address.path or "/") + (f"?{query}" if query else "")
        self._token = token
        self._public_only = public_only
        self._context = context or tls_context
        self._connection: http.client.HTTPConnection | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._left = 0
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._aborted = ""
        self.validator: str | None = None

    def open(self, wanted: Wanted, *, if_range: str | None = None) -> int:
        """Ask; returns the byte at which the answer begins: `wanted.start`, or 0 where all is sent anew.

        Args:
            if_range: the validator of what is there already; without, an answer from 0 in place of the range
                is refused.

        Raises:
            SourceFault: what else may come.
        """
        headers = {
            "Range": f"bytes={wanted.start}-{wanted.end - 1}",
            "Accept-Encoding": "identity",
            "User-Agent": "tensorage",
        }
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if if_range is not None:
            headers["If-Range"] = if_range
        try:
            answer = self._answer = self._ask(headers)
            return self._judge(answer, wanted, anew=if_range is not None)
        except SourceFault as fault:
            self.close()
            raise (self._broken(fault) if self._aborted else fault) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise self._broken(error) from error

    def readinto(self, view: memoryview) -> int:
        """Fill a part of `view`; returns how many bytes, 0 at the end of the range.

        Raises:
            SourceFault: it broke off.
        """
        if not self._left or self._answer is None:
            return 0
        size = min(len(view), self._left, _PIECE)
        try:
            got = self._answer.readinto(view[:size])
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from error
        if not got:
            raise self._broken(ConnectionError(f"the connection ended {self._left} bytes early"))
        self._left -= got
        return got

    def abort(self, reason: str) -> None:
        """End what is under way, and what comes after it, with a fault that says `reason`."""
        with self._lock:
            self._aborted = self._aborted or reason
            self._shut(self._socket)

    def close(self) -> None:
        """Close the connection."""
        if self._answer is not None:
            self._answer.close()
        if self._connection is not None:
            self._connection.close()
        with self._lock:
            self._connection = self._answer = self._socket = None
        self._left = 0

    def _ask(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Over the connection that is open, if the last answer was read to its end and it still works."""
        used, last = self._connection, self._answer
        if used is not None and used.sock is not None and last is not None and last.isclosed():
            try:
                used.request("GET", self._target, headers=headers)
                return used.getresponse()
            except (OSError, http.client.HTTPException):
                if self._aborted:
                    raise
        self.close()
        self._connection = self._connect()
        self._connection.request("GET", self._target, headers=headers)
        return self._connection.getresponse()

    def _connect(self) -> http.client.HTTPConnection:
        address = self._address
        context = self._context() if address.scheme == "https" else None
        connection = http.client.HTTPConnection(address.host, address.port, timeout=STALL_SECONDS)
        raw = self._dial()
        try:
            raw.settimeout(STALL_SECONDS)
            with self._lock:
                self._socket = raw
                if self._aborted:
                    self._shut(raw)
            stream = raw if context is None else self._secure(raw, context)
        except BaseException:
            raw.close()
            raise
        connection.sock = stream
        connection.auto_open = 0
        return connection

    def _secure(self, raw: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        stream = context.wrap_socket(
            raw, server_hostname=self._address.host, do_handshake_on_connect=False
        )  # which takes the descriptor over from `raw`
        try:
            with self._lock:
                self._socket = stream
                if self._aborted:
                    self._shut(stream)
            stream.do_handshake()
        except BaseException:
            stream.close()
            raise
        return stream

    def _dial(self) -> socket.socket:
        """A connection to one of the host's addresses: those that were looked at, not looked up again."""
        last: OSError | None = None
        for family, kind, protocol, _, name in self._look_up()[:_MOST_ADDRESSES]:
            if self._public_only and not is_public(str(name[0])):
                raise SourceFault(f"is at {name[0]}, in no public network", final=True)
            raw = socket.socket(family, kind, protocol)
            with self._lock:
                self._socket = raw
            if self._aborted:
                raw.close()
                break
            try:
                raw.settimeout(CONNECT_SECONDS)
                raw.connect(name)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                raw.close()
                last = error
                continue
            return raw
        raise last or OSError("the host has no address")

    def _look_up(self) -> list[Any]:
        """The host's addresses. Nothing ends a look-up, so a thread does it, and may be left behind."""
        found: queue.SimpleQueue[list[Any] | OSError | UnicodeError] = queue.SimpleQueue()

        def work() -> None:
            try:
                found.put(socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.put(error)

        threading.Thread(target=work, name="dataset-names", daemon=True).start()
        until = time.monotonic() + CONNECT_SECONDS
        while not self._aborted and time.monotonic() < until:
            try:
                answer = found.get(timeout=_TICK)
            except queue.Empty:
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer
        raise OSError("the host's address is not to be had in time")

    @staticmethod
    def _shut(connection: socket.socket | None) -> None:
        if connection is None or connection.fileno() < 0:
            return
        try:
            # Not through TLS, which another thread is reading from.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        except OSError:
            return  # it had ended already

    def _judge(self, answer: http.client.HTTPResponse, wanted: Wanted, *, anew: bool) -> int:
        if answer.status not in (200, 206):
            raise _refusal(answer)
        if (encoding := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise SourceFault(f"sends the file as {encoding[:20]!a}", final=True)
        headers = answer.headers
        self.validator = _strong(headers.get("ETag")) or _date(headers.get("Last-Modified"))
        if answer.status == 206:
            start, end = self._range(answer, wanted)
        elif wanted.start == 0 or anew:
            start, end = 0, wanted.size
        else:
            raise SourceFault("sends the whole file where a part was asked for", final=True)
        if answer.length is not None and answer.length != end - start:
            raise SourceFault(f"sends {answer.length} bytes where {end - start} are due", final=True)
        self._left = wanted.end - start
        return start

    @staticmethod
    def _range(answer: http.client.HTTPResponse, wanted: Wanted) -> tuple[int, int]:
        text = answer.headers.get("Content-Range", "")
        found = _RANGE.fullmatch(text)
        if found is None or (int(found[1]), int(found[2]) + 1, int(found[3])) != (
            wanted.start,
            wanted.end,
            wanted.size,
        ):
            raise SourceFault(
                f"sends Content-Range {text[:60]!a} where bytes {wanted.start}-{wanted.end - 1}/"
                f"{wanted.size} were asked for",
                final=True,
            )
        return wanted.start, wanted.end

    def _broken(self, error: Exception) -> SourceFault:
        if self._aborted:
            return SourceFault(self._aborted, final=True)
        if isinstance(error, TimeoutError):
            return SourceFault("was silent for too long", final=False)
        if isinstance(error, ssl.SSLCertVerificationError):
            return SourceFault(f"has no good certificate: {error.verify_message}", final=True)
        return SourceFault(f"broke off: {str(error)[:200]!a}", final=False)


def _strong(etag: str | None) -> str | None:
    return etag if etag and len(etag) <= 200 and etag.startswith('"') and etag.endswith('"') else None


def _refusal(answer: http.client.HTTPResponse) -> SourceFault:
    if 300 <= answer.status < 400:
        where = answer.headers.get("Location", "")[:100]
        return SourceFault(f"sends elsewhere ({answer.status}, {where!a}), which is not followed", final=True)
    wait = answer.headers.get("Retry-After", "")
    seconds = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 5 else 0.0
    return SourceFault(
        f"refuses with HTTP {answer.status}",
        final=answer.status not in _RETRIED,
        wait=min(seconds, _MOST_WAIT),
    )


def _date(text: str | None) -> str | None:
    """A Last-Modified that can be used as a validator; None where it is no date."""
    if not text or len(text) > 64:
        return None
    try:
        parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return text


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """TLS as the machine trusts it; SSL_CERT_FILE names other authorities."""
    return ssl.create_default_context()
