"""What a miner does for clients, put together: takes shards in, gives them out, keeps them in order.

uploads.py      taking a shard in            tickets.py      which tickets are taken
pieces.py       its bytes, challenges, end   retrievals.py   records of what was read
listings.py     what is said about all       slots.py        expiry, and what is given back
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from ..allocator.shards import ShardStore
from ..chain.types import Metagraph
from ..hashchain import Sign
from ..transport.axon import Axon
from .fill import Filler
from .listings import Listings
from .metrics import ShardMetrics
from .pieces import Pieces
from .priority import Priority
from .retrievals import Record, Retrievals
from .slots import Slots
from .uploads import Uploads


class Shards:
    """All of that for one miner. For one event loop.

    Args:
        store: the shards, which this closes.
        metagraph: the subnet as known now, without I/O.
        sign: signs with the miner's hotkey.
        registry: where it is counted.
    """

    def __init__(
        self,
        store: ShardStore,
        filler: Filler,
        *,
        metagraph: Callable[[], Metagraph],
        sign: Sign,
        priority: Priority,
        registry: CollectorRegistry,
    ) -> None:
        metrics = ShardMetrics(registry)
        self.store = store
        self._slots = Slots(store, filler, metrics)
        self._retrievals = Retrievals(self._record, miner=store.identity.hotkey, sign=sign)
        self._uploads = Uploads(store, metagraph=metagraph, sign=sign, priority=priority, metrics=metrics)
        self._pieces = Pieces(
            store,
            sign=sign,
            priority=priority,
            retrievals=self._retrievals,
            metrics=metrics,
            see_to=self._slots.see_to,
        )
        self._listings = Listings(store)

    def attach(self, axon: Axon) -> None:
        """Serve clients on `axon`."""
        for part in (self._uploads, self._pieces, self._listings):
            part.attach(axon)

    def see_to(self) -> None:
        """Look now whether there is something to put in order. On the event loop."""
        self._slots.see_to()

    def duties(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What is to be run for ever."""
        return {
            "keeping clients' shards": self._slots.run(),
            "recording retrievals": self._retrievals.run(),
        }

    def close(self) -> None:
        """Let the threads end, and write what is left to write. Blocks on the disk for a moment."""
        for part in (self._uploads, self._pieces, self._listings, self._slots, self._retrievals):
            part.close()
        self.store.close()

    def _record(self, records: Sequence[Record]) -> None:
        self.store.add_retrievals(records, int(time.time()))
