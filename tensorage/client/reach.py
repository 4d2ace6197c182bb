"""What it takes to ask the miners and the gateway of one file, with the file's own access key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from ..chain.types import Endpoint
from ..errors import UsageError
from ..transport.addresses import is_public
from ..transport.dendrite import Dendrite, Peer
from ..transport.file_calls import MinerCalls
from .catalog import Catalog
from .gateway import Access, Gateway, address_of, may_dial_private
from .known import Known, learned
from .places import Places

#: Connections to one miner.
PER_PEER = 4


@dataclass(frozen=True)
class Reach:
    """Miners, gateway and places of a file."""

    miners: MinerCalls
    gateway: Gateway
    places: Places


@asynccontextmanager
async def reaching(known: Known, access: Access, catalog: Catalog | None) -> AsyncIterator[Reach]:
    """Open what it takes for one file. No account is needed, and no chain.

    Raises:
        UsageError: its miners have private addresses, and nothing says that these may be dialled.
    """
    manifest, keys = known.manifest, known.keys
    private = may_dial_private(access, manifest.gateway.ip if known.row is not None else None)
    if not private and any(
        shard.ip is not None and not is_public(shard.ip)
        for stripe in manifest.stripes
        for shard in stripe.shards
    ):
        raise UsageError(
            f"{manifest.name!r} lies at private addresses, which a link alone does not have dialled",
            remedy="Name the network with --subtensor.network devnet or local, or its --gateway",
        )
    endpoint = Endpoint(manifest.gateway.ip, manifest.gateway.port)
    if access.url is not None:
        endpoint = await address_of(access.url)
    note = partial(learned, catalog, known.row) if catalog is not None and known.row is not None else None
    async with Dendrite(keys.access, allow_private=private, per_peer=PER_PEER) as dendrite:
        gateway = Gateway(dendrite, Peer(manifest.gateway.hotkey, endpoint), keys.access)
        public = keys.access.public_key
        places = Places(manifest, public, gateway, note) if note else Places(manifest, public, gateway)
        yield Reach(MinerCalls(dendrite), gateway, places)
