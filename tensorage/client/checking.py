"""verify: every shard of a file challenged now, by its owner, without fetching it.

A miner must walk through its shard, where each leaf decides the next (`shard`), and sign the way; it cannot
answer for bytes that it does not have. Health is counted per stripe: a stripe with K good shards can be read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .. import shard as shards
from ..chain.auth import verify as signed_by
from ..coding.manifest import Manifest, ShardAt
from ..errors import ProofError
from ..transport.dendrite import PeerError
from .gateway import GatewayError
from .known import Known
from .places import peer_of
from .reach import Reach

#: Leaves read for one challenge.
HOPS = 8
DEADLINE = 20.0
#: Challenges under way at once.
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one shard; `reason` is empty when it is good."""

    stripe: int
    number: int
    hotkey: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What came of a file.

    Attributes:
        good: stripe -> good shards.
    """

    manifest: Manifest
    findings: tuple[Finding, ...]

    @property
    def good(self) -> dict[int, int]:
        counts = {stripe.number: 0 for stripe in self.manifest.stripes}
        for finding in self.findings:
            counts[finding.stripe] += not finding.reason
        return counts

    @property
    def failed(self) -> list[Finding]:
        """Those that are not good."""
        return [finding for finding in self.findings if finding.reason]

    @property
    def exit_code(self) -> int:
        """0: all shards are good. 1: some are not, but the file can be read. 3: it cannot be read now."""
        good = self.good
        if any(count < self.manifest.data_shards for count in good.values()):
            return 3
        return 1 if any(count < self.manifest.shards for count in good.values()) else 0


async def check(
    known: Known, reach: Reach, progress: Callable[[float], None], tell: Callable[[str], None]
) -> Report:
    """Challenge all shards, where the gateway says that they are, or else where they were last."""
    manifest = known.manifest
    try:
        for stripe in manifest.stripes:
            await reach.places.refresh(stripe.number)
    except GatewayError as error:
        tell(f"shards are asked for where they were last: {error}")
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(stripe: int, number: int, at: ShardAt | None) -> Finding:
        if at is None:
            return Finding(stripe, number, "", "it has no place")
        async with turns:
            reason = await _challenge(known, reach, at)
        progress(1)
        return Finding(stripe, number, at.hotkey, reason)

    findings: list[Finding] = []
    for page in _paged(manifest):
        findings += await asyncio.gather(
            *(
                one(stripe, number, reach.places.of(stripe).get(number))
                for stripe in page
                for number in range(manifest.shards)
            )
        )
    return Report(manifest, tuple(findings))


def _paged(manifest: Manifest) -> Iterator[list[int]]:
    """Stripes in groups that are few enough to have a task for each shard."""
    numbers = [stripe.number for stripe in manifest.stripes]
    for start in range(0, len(numbers), 64):
        yield numbers[start : start + 64]


async def _challenge(known: Known, reach: Reach, at: ShardAt) -> str:
    """Why the shard is not good; empty when it is."""
    ticket, asker = at.signed.ticket, known.keys.access.public_key
    salt = secrets.token_bytes(shards.SALT_SIZE)
    nonce = shards.nonce(salt, asker, ticket.miner, ticket.hash)
    try:
        answer, _ = await reach.miners.challenge(
            peer_of(at), ticket.hash, salt, HOPS, ticket.leaves, deadline=DEADLINE
        )
        shards.verify_answer(nonce, HOPS, ticket.shard_root, ticket.leaves, ticket.miner, answer, signed_by)
    except (PeerError, ProofError) as error:
        return error.message
    return ""
