"""What the calls to miners and to gateways have in common: who signs, and pages that end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from .dendrite import Addressed, Dendrite, Malformed, answered

if TYPE_CHECKING:
    from ..chain.wallet import Hotkey
    from ..keyauth import SigningKey

M = TypeVar("M", bound=BaseModel)


class Calls:
    """Asks over a dendrite.

    Args:
        dendrite: how peers are asked.
        key: signs, instead of the dendrite's own: an account's, or the access key of a file.
    """

    def __init__(self, dendrite: Dendrite, key: Hotkey | SigningKey | None = None) -> None:
        self._dendrite = dendrite
        self._key = key

    async def ask(
        self,
        model: type[M],
        peer: Addressed,
        method: str,
        path: str,
        deadline: float | None,
        *,
        query: Mapping[str, int] | None = None,
        body: bytes | BaseModel = b"",
        max_bytes: int = 16 * 1024,
    ) -> M:
        """The message that a peer answers with; as `Dendrite.request` in all else."""
        response = await self._dendrite.request(
            peer,
            method,
            path,
            query=query,
            body=body,
            max_bytes=max_bytes,
            deadline=deadline,
            key=self._key,
        )
        return answered(model, response)


def next_page(following: int | None, start: int, count: int) -> int | None:
    """Where the next page starts; Malformed where that is not ahead, so that no peer has us ask for ever."""
    if following is not None and (following <= start or not count):
        raise Malformed(f"page {following} comes after page {start}, which has {count} entries")
    return following
