"""A worker's side of being let in (RFC 8628 in shape): show a code, wait for the owner, keep the token.

The seller's word is cleaned before it is shown, its interval is obeyed within bounds, and waiting ends when
the code does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import TensorageError
from .api import Answer, Seller, SellerError, document, retry_after
from .book import Book, Token
from .entitling import check_token

_USER_CODE = re.compile(r"[A-Z0-9-]{4,16}", re.ASCII)
_DEVICE_CODE = re.compile(r"[!-~]{8,256}", re.ASCII)
_MOST_SECONDS = 3600
_MOST_INTERVAL = 60.0
_SLOWER = 5.0  # RFC 8628, section 3.5
#: Polls in a row that may find the seller away.
_MOST_AWAY = 5


class JoinError(TensorageError):
    """The owner did not let this worker in."""


async def join(
    seller: Seller,
    book: Book,
    *,
    worker: str,
    show: Callable[[str, int], None],
    clock: Callable[[], int],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Ask, wait, and keep the token; it is on disk when this returns.

    Args:
        worker: what the owner sees beside the code.
        show: told the code, and for how many seconds it is good.
        clock: unix seconds.

    Raises:
        JoinError: the code ended, or is not known any more.
        SellerError: the seller does not answer as it should.
    """
    seller.place.check_private()
    found = await seller.device_code(worker)
    device, shown = found.get("device_code"), found.get("user_code")
    if not isinstance(device, str) or not _DEVICE_CODE.fullmatch(device):
        raise SellerError(f"{seller.place.base} gives no code")
    if not isinstance(shown, str) or not _USER_CODE.fullmatch(shown):
        raise SellerError(f"{seller.place.base} gives no code that can be shown")
    life = _number(found.get("expires_in"), 900, _MOST_SECONDS)
    interval = _number(found.get("interval"), 5, _MOST_INTERVAL)
    until = clock() + life
    show(shown, int(life))
    away = 0
    while clock() < until:
        await sleep(interval)
        try:
            answer = await seller.device_token(device)
        except SellerError:
            away += 1
            if away > _MOST_AWAY:
                raise
            continue
        away = 0
        if answer.status == 429 or answer.kind == "slow_down":
            interval = min(max(interval + _SLOWER, retry_after(answer)), _MOST_INTERVAL)
            continue
        if (token := _token(answer)) is not None:
            place = seller.place
            book.keep_token(place.base, place.id, Token(token, None, "join", clock()))
            return
    raise JoinError(
        "nobody approved the code in its time", remedy="Join again, and have the owner approve it"
    )


def _token(answer: Answer) -> str | None:
    """The token in an answer; None while the owner has not decided."""
    if answer.kind == "authorization_pending":
        return None
    if answer.status in (404, 410):
        raise JoinError(
            f"the code is not good any more ({answer.message or answer.kind})", remedy="Join again"
        )
    if answer.status != 200:
        raise JoinError(f"the seller refuses (HTTP {answer.status}: {answer.message or answer.kind})")
    found = document(answer.body, "the seller's answer")
    if found.get("status") == "authorization_pending":
        return None
    if found.get("status") != "authorized":
        raise SellerError(f"the seller answers {str(found.get('status'))[:40]!a}, which says nothing")
    return check_token(str(found.get("token", "")), "the seller's answer")


def _number(value: Any, default: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int):
        return default
    return min(max(float(value), 1.0), most)
