"""A way in from the internet: `cloudflared`, which is run beside the server and ends with it.

It prints the public address among its log lines on stderr, some seconds after its start. The tunnel brings
TLS of its own and ends at the server's port on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
from collections import deque

from ...errors import TensorageError, UsageError
from ...transport.refusals import one_line

logger = logging.getLogger(__name__)

PROGRAM = "cloudflared"
START_SECONDS = 40.0
STOP_SECONDS = 1.5
INSTALL = (
    "Install cloudflared (https://github.com/cloudflare/cloudflared/releases; `brew install cloudflared`, or "
    "Cloudflare's Debian package), or publish with --no-tunnel"
)
#: Quick tunnels have names of several words; api.trycloudflare.com, which stands in error lines, is none.
_ADDRESS = re.compile(rb"https://[a-z0-9]+(?:-[a-z0-9]+)+\.trycloudflare\.com(?![a-z0-9.-])")
_LINE = 16 * 1024


class TunnelError(TensorageError):
    """There is no tunnel, or there was one and it has ended."""


def find() -> str:
    """The path of cloudflared.

    Raises:
        UsageError: it is not installed.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise UsageError(f"{PROGRAM} is not on the PATH", remedy=INSTALL)
    return found


class Tunnel:
    """A running cloudflared.

    Args:
        program: its path.
        target: URL of the server on this machine.
    """

    def __init__(self, program: str, target: str) -> None:
        self._command = [program, "tunnel", "--no-autoupdate", "--url", target]
        self._process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=3)

    async def start(self, seconds: float = START_SECONDS) -> str:
        """Run it; returns the public URL.

        Raises:
            TunnelError: it ended, or said no address in time.
        """
        # Should this process be killed, a tunnel must not stay open to whatever listens on the port next.
        if (setpriv := shutil.which("setpriv")) is not None:
            self._command = [setpriv, "--pdeathsig", "TERM", "--", *self._command]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=_LINE,
            )
        except OSError as error:
            raise TunnelError(f"{PROGRAM} cannot be run: {error.strerror}", remedy=INSTALL) from error
        try:
            return await asyncio.wait_for(self._address(), seconds)
        except asyncio.TimeoutError as error:
            await self.stop()
            raise TunnelError(
                f"{PROGRAM} said no public address within {seconds:g} s{self._last_words()}",
                remedy="Check the network, and try again",
            ) from error
        except BaseException:
            await self.stop()
            raise

    async def ended(self) -> TunnelError:
        """Wait until it ends; returns what there is to say of that."""
        while await self._line() is not None:
            pass
        return await self._end()

    async def stop(self) -> None:
        """End it, and wait until it has."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _address(self) -> str:
        while (line := await self._line()) is not None:
            if found := _ADDRESS.search(line):
                return found.group().decode("ascii")
        raise await self._end()

    async def _line(self) -> bytes | None:
        """The next line of its log, or a part of an overlong one; None at the end."""
        if self._process is None or self._process.stderr is None:
            raise RuntimeError("the tunnel was not started")
        stderr = self._process.stderr
        try:
            line = await stderr.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            line = end.partial
        except asyncio.LimitOverrunError as overrun:
            line = await stderr.read(overrun.consumed or _LINE)
        if not line:
            return None
        text = one_line(line.decode("utf-8", "replace"))
        self._said.append(text)
        logger.debug("%s: %s", PROGRAM, text)
        return line

    async def _end(self) -> TunnelError:
        code = None if self._process is None else await self._process.wait()
        return TunnelError(
            f"{PROGRAM} ended with code {code}{self._last_words()}", remedy="Publish again for another tunnel"
        )

    def _last_words(self) -> str:
        return f": {self._said[-1]}" if self._said else ""
