"""Device authorisation: how a worker with no password becomes a member (RFC 8628 in shape).

A worker asks for a code and shows the short half of it, the user code; the owner approves that. The worker
polls with the long half, the device code, and the first poll after the approval consumes the code: a token is
minted for it. With open membership a code is approved as it is issued.

Pure: the clock and the random bytes are passed in, and nothing is kept beyond this process: who polls after
the server has died asks for another code. What strangers can make it remember is bounded: codes are counted
in all and for each address, and those that are over are swept whenever one is issued.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...transport.refusals import one_line
from .refusal import Refusal

#: Life of a code, and the least time between two polls of one; seconds.
CODE_SECONDS = 900
POLL_SECONDS = 5
#: Codes that are remembered at once, in all and for one address.
MAX_CODES = 1024
MAX_CODES_PER_ADDRESS = 16
#: Letters of a user code: none that is taken for another.
GLYPHS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"

_WORKER_LENGTH = 64
_REDRAWS = 5


@dataclass(slots=True)
class Code:
    """One code. `worker` is what the worker calls itself, which nothing vouches for."""

    device_code: str
    user_code: str
    worker: str
    address: str
    issued: int
    state: Literal["pending", "approved"] = "pending"
    polled: int | None = None


class Codes:
    """The codes that are out.

    Args:
        clock: unix seconds.
        rng: so many random bytes.
        is_open: approve every code as it is issued.
    """

    def __init__(self, clock: Callable[[], int], rng: Callable[[int], bytes], *, is_open: bool) -> None:
        self._clock = clock
        self._rng = rng
        self._is_open = is_open
        self._by_device: dict[str, Code] = {}
        self._by_user: dict[str, Code] = {}
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_device)

    def issue(self, worker: str, address: str) -> Code:
        """A new code for a worker at `address`.

        Raises:
            Refusal: `too_many_codes`, from this address (429) or in all (503); `server_error`.
        """
        self._sweep(address)
        if self._by_address[address] >= MAX_CODES_PER_ADDRESS:
            raise Refusal(
                "too_many_codes",
                "too many codes of your address are waiting; use one of them, or try again later",
                headers={"retry-after": str(CODE_SECONDS)},
            )
        if len(self._by_device) >= MAX_CODES:
            raise Refusal(
                "too_many_codes",
                "too many codes are waiting; try again later",
                status=503,
                headers={"retry-after": "60"},
            )
        worker = one_line(worker, _WORKER_LENGTH)
        code = Code(self._rng(32).hex(), self._new_user_code(), worker, address, self._clock())
        if self._is_open:
            code.state = "approved"
        self._put(code)
        return code

    def approve(self, user_code: str) -> Code:
        """Approve a code, which is matched trimmed and in either case.

        Raises:
            Refusal: `invalid_code`, `expired_code`, `already_used`.
        """
        code = self._by_user.get(user_code.strip().upper())
        if code is None:
            raise Refusal("invalid_code", "no such code; ask the worker for the one that it shows")
        if self._is_over(code):
            raise Refusal("expired_code", "the code has expired; have the worker ask for another")
        if code.state != "pending":
            raise Refusal("already_used", "the code is approved already")
        code.state = "approved"
        return code

    def knows(self, device_code: str) -> bool:
        """Whether there is such a device code. Nobody guesses one of 32 random bytes."""
        return device_code in self._by_device

    def poll(self, device_code: str) -> Code | None:
        """The code, which is consumed, when it is approved; None while it is pending.

        Whoever gets it either mints a token or gives it back (`restore`).

        Raises:
            Refusal: `invalid_grant` (unknown or consumed), `expired_token`, `slow_down`.
        """
        code = self._by_device.get(device_code)
        if code is None:
            raise Refusal("invalid_grant", "no such device code, or it has been used; ask for another code")
        if self._is_over(code):
            raise Refusal("expired_token", "the device code has expired; ask for another code")
        if code.state == "approved":
            self._drop(code)
            return code
        now = self._clock()
        if code.polled is not None and now - code.polled < POLL_SECONDS:
            raise Refusal(
                "slow_down",
                f"poll no more than once in {POLL_SECONDS} s",
                headers={"retry-after": str(POLL_SECONDS)},
            )
        code.polled = now
        return None

    def restore(self, code: Code) -> None:
        """Take back a code that `poll` gave out, since no token could be minted."""
        self._put(code)

    def _put(self, code: Code) -> None:
        self._by_device[code.device_code] = code
        self._by_user[code.user_code] = code
        self._by_address[code.address] += 1

    def _drop(self, code: Code) -> None:
        del self._by_device[code.device_code], self._by_user[code.user_code]
        self._by_address[code.address] -= 1
        if not self._by_address[code.address]:
            del self._by_address[code.address]

    def _is_over(self, code: Code) -> bool:
        return self._clock() - code.issued >= CODE_SECONDS

    def _sweep(self, address: str) -> None:
        """Forget codes some time after their end, so that who polls hears of it; at once if room is short."""
        before = self._clock() - 2 * CODE_SECONDS
        crowded = len(self._by_device) >= MAX_CODES or self._by_address[address] >= MAX_CODES_PER_ADDRESS
        for code in list(self._by_device.values()):
            if code.issued <= before or (crowded and self._is_over(code)):
                self._drop(code)

    def _new_user_code(self) -> str:
        for _ in range(_REDRAWS):
            letters = self._letters(8)
            user_code = f"{letters[:4]}-{letters[4:]}"
            if user_code not in self._by_user:
                return user_code
        raise Refusal("server_error", "no code could be made; try again")

    def _letters(self, count: int) -> str:
        """So many glyphs, each as likely as any other."""
        fair = 256 - 256 % len(GLYPHS)
        letters = ""
        while len(letters) < count:
            letters += "".join(GLYPHS[byte % len(GLYPHS)] for byte in self._rng(count) if byte < fair)
        return letters[:count]
