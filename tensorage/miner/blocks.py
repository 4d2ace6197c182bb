"""Which block a challenge may be about.

Its hash makes the nonce, so the block must be younger than the commitment: then nobody could choose bytes to
fit the question. The validator is the one who is deceived by an old block, and checks for itself; the miner
refuses what is plainly stale or of another chain, and gives the validator the benefit of the doubt where its
own view of the chain is behind.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio

from ..chain.types import BlockRef
from ..commitment import Commitment
from ..errors import ChainError, RequestError

log = logging.getLogger(__name__)

#: How many blocks behind the head a challenge may be.
RECENT = 256
_ASK_SECONDS = 1.0
#: How long the chain's answer about a height is good for: whoever asks about wrong hashes must not have us
#: ask our node for each.
_GOOD_FOR = 10.0


def check_block(commitment: Commitment, number: int, head: int | None) -> None:
    """Check the height of a challenge's block; one above our head is taken, since we may be behind.

    Args:
        head: the height that we know of, None when we know none yet.

    Raises:
        RequestError: "malformed"; not above the commitment's block, or too old.
    """
    if number <= commitment.block_number:
        raise RequestError(
            "malformed",
            f"block {number} is not above {commitment.block_number}, that of commitment {commitment.seq}",
        )
    if head is not None and number < head - RECENT:
        raise RequestError("malformed", f"block {number} is stale: the head is {head}, {RECENT} are allowed")


class Blocks:
    """The newest blocks of the chain as we have seen them.

    Args:
        block_hash: asks the chain for the hash at a height.
        clock: seconds, steady.
    """

    def __init__(
        self, block_hash: Callable[[int], Awaitable[bytes]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = block_hash
        self._clock = clock
        self._asked: dict[int, float] = {}  # when, by height; heights that we know only
        self._hashes: OrderedDict[int, bytes] = OrderedDict()
        self.head: int | None = None

    def saw(self, block: BlockRef) -> None:
        """Take note of a block that the chain has now."""
        self._hashes[block.number] = block.hash
        self.head = block.number if self.head is None else max(self.head, block.number)
        while len(self._hashes) > RECENT:
            gone, _ = self._hashes.popitem(last=False)
            self._asked.pop(gone, None)

    async def follow(self, heads: AsyncIterator[BlockRef]) -> None:
        """Take note of every new head."""
        async for block in heads:
            self.saw(block)

    async def check_hash(self, number: int, block_hash: bytes) -> None:
        """Check the hash of a challenge's block, where we know it. What we saw may have been replaced by
        another branch since, so before a refusal the chain is asked again.

        Raises:
            RequestError: "malformed"; the chain has another block at that height.
        """
        known = self._hashes.get(number)
        if known is None or known == block_hash:
            return
        now = known
        if self._clock() - self._asked.get(number, -_GOOD_FOR) >= _GOOD_FOR:
            try:
                with anyio.fail_after(_ASK_SECONDS):
                    now = await self._ask(number)
            except (ChainError, TimeoutError) as error:
                log.debug("hash of block %d not asked again error=%r", number, str(error))
                return
            if number in self._hashes:  # not so old meanwhile that it was forgotten
                self._hashes[number] = now
                self._asked[number] = self._clock()
        if now != block_hash:
            raise RequestError(
                "malformed", f"block {number} has the hash {now.hex()}, not {block_hash.hex()}"
            )
