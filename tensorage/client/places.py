"""Where the shards of a file are: what its manifest says, and what the gateway has said since.

The gateway is asked only when the manifest's word does not do, and believed only as far as this goes: a new
ticket must be signed by the very validator that the manifest names, for this file, of the same size. It may
then still be a ticket for wrong bytes; those would not open under the file's key.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ..chain.auth import public_key, verify
from ..chain.types import Endpoint
from ..coding.manifest import Manifest, ShardAt
from ..errors import ProofError
from ..transport.dendrite import Peer
from ..transport.file_messages import STRIPES_PAGE, FileMessage, ShardPlace
from .gateway import DEADLINE, Gateway, GatewayError

#: Seconds after which the gateway may be asked about the same stripes again.
AGAIN = 5.0


class Places:
    """The shards of one file.

    Args:
        access: public key of the file.
        gateway: asked with the file's access key; None where none is to be asked.
        learned: told of each shard that is known better: its stripe, it, and whether its ticket is the same
            and only the miner serves elsewhere. Of a miner that moved it is told once.
    """

    def __init__(
        self,
        manifest: Manifest,
        access: bytes,
        gateway: Gateway | None,
        learned: Callable[[int, ShardAt, bool], None] = lambda stripe, shard, same: None,
    ) -> None:
        self.manifest = manifest
        self._access = access
        self._gateway = gateway
        self._learned = learned
        self._known: dict[int, dict[int, ShardAt]] = {}  # of the stripes that were asked about
        self._asked: dict[int, float] = {}  # page -> when
        self._moves: set[tuple[str, str | None, int | None]] = set()

    def of(self, stripe: int) -> dict[int, ShardAt]:
        """The shards of a stripe by number."""
        if stripe not in self._known:
            self._known[stripe] = {shard.number: shard for shard in self.manifest.stripes[stripe].shards}
        return self._known[stripe]

    async def refresh(self, stripe: int) -> bool:
        """Ask the gateway about a stripe and those beside it; whether anything is known better than before.

        Raises:
            GatewayError: it is away, refuses, or says what cannot be.
        """
        page = stripe // STRIPES_PAGE
        now = time.monotonic()
        if self._gateway is None or now - self._asked.get(page, -AGAIN) < AGAIN:
            return False
        self._asked[page] = now
        calls, peer = self._gateway.calls, self._gateway.peer
        message = await self._gateway.ask(
            lambda: calls.file(peer, self.manifest.id, page * STRIPES_PAGE, STRIPES_PAGE, deadline=DEADLINE),
            patience=0.0,
        )
        return self._take(message)

    def _take(self, message: FileMessage) -> bool:
        changed = False
        for stripe in message.stripes:
            if stripe.number >= len(self.manifest.stripes):
                continue
            known = self.of(stripe.number)
            for place in stripe.shards:
                changed |= self._take_one(stripe.number, known, place)
        return changed

    def _take_one(self, stripe: int, known: dict[int, ShardAt], place: ShardPlace) -> bool:
        if place.number >= self.manifest.shards:
            return False
        signed, before = place.signed(), known.get(place.number)
        found = ShardAt(place.number, signed, place.hotkey, place.ip, place.port)
        if before is not None and before.signed.ticket.hash == signed.ticket.hash:
            moved = replace(before, ip=place.ip, port=place.port)
            known[place.number] = moved
            move = (place.hotkey, place.ip, place.port)
            if moved != before and move not in self._moves:
                self._moves.add(move)
                self._learned(stripe, moved, True)
            return moved != before
        ticket, manifest = signed.ticket, self.manifest
        leaves = manifest.stripes[stripe].leaves
        told = (ticket.validator, ticket.client, ticket.leaves, ticket.genesis, ticket.netuid, ticket.miner)
        due = (
            public_key(manifest.gateway.hotkey),
            self._access,
            leaves,
            manifest.genesis,
            manifest.netuid,
            public_key(place.hotkey),
        )
        if told != due:
            raise GatewayError(f"the gateway names a ticket for shard {place.number} that is for another")
        try:
            signed.check(verify)
        except ProofError as error:
            raise GatewayError(f"the gateway names a false ticket: {error}") from error
        known[place.number] = found
        self._learned(stripe, found, False)
        return True


def peer_of(shard: ShardAt) -> Peer:
    """Whom to ask for a shard: the miner that its ticket names, where it was last."""
    endpoint = Endpoint(shard.ip, shard.port) if shard.ip is not None and shard.port is not None else None
    return Peer(shard.hotkey, endpoint)
