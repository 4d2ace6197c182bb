"""Storage as a block left it, and the state that a block works on.

`View` reads what one block left. `State` adds what the block being made has changed so far, in layers: a
failing call undoes its own writes and nothing else. Nothing here writes to the file; `changes` is what the
producer stores with the block. A few items are not stored but follow from the block itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import items as catalogue
from .errors import DispatchError
from .store import Key, Store

SUBTENSOR = "SubtensorModule"


def _key_order(pair: tuple[Key, Any]) -> tuple[tuple[bool, Any], ...]:
    return tuple((isinstance(part, str), part) for part in pair[0])


class View:
    """Read storage as block `block` left it."""

    def __init__(self, store: Store, block: int) -> None:
        self.store = store
        self.block = block

    def _stored(self, pallet: str, item: str, key: Key) -> tuple[bool, Any]:
        return self.store.get(pallet, item, key, self.block)

    def get(self, pallet: str, item: str, *key: Any) -> Any:
        """The value of a key, or the item's default. What comes back may be changed freely.

        Raises:
            bittensor.ChainError: the runtime has no such item.
        """
        known = catalogue.default(pallet, item)
        found, value = self._stored(pallet, item, key)
        return value if found else copy.deepcopy(known)

    def items(self, pallet: str, item: str, *prefix: Any) -> list[tuple[Key, Any]]:
        """All stored (key, value) of an item whose key begins with `prefix`, in key order."""
        return self.store.items(pallet, item, prefix, self.block)

    def __getitem__(self, where: tuple[Any, ...]) -> Any:
        """`view["Tempo", netuid]`: an item of the subtensor pallet."""
        return self.get(SUBTENSOR, *where)

    def read(self, pallet: str, item: str, *key: Any) -> Any:
        """`get`, also of the items that follow from the block."""
        if (pallet, item) == (SUBTENSOR, "BlocksSinceLastStep"):
            return max(0, self.block - int(self.get(SUBTENSOR, "LastEpochBlock", *key)))
        if (pallet, item) == ("System", "Number"):
            return self.block
        if (pallet, item) == ("System", "Events"):
            return self.store.events(self.block)
        if (pallet, item) == ("System", "BlockHash"):
            block = self.store.block(int(key[0])) if key else None
            return block.hash if block is not None and block.number <= self.block else f"0x{bytes(32).hex()}"
        if (pallet, item) == ("Timestamp", "Now"):
            block = self.store.block(self.block)
            return 0 if block is None else block.time_ms
        return self.get(pallet, item, *key)


class State(View):
    """Read and write storage on top of block `base`, while block `base + 1` is made."""

    def __init__(self, store: Store, base: int, *, time_ms: int) -> None:
        super().__init__(store, base + 1)
        self.time_ms = time_ms
        self.position: int | None = None  # of the extrinsic that runs now; None before any does
        self.events: list[dict[str, Any]] = []
        self.nested: DispatchError | None = None  # how a call inside the extrinsic that runs now failed
        self._base = base
        self._layers: list[dict[tuple[str, str, Key], Any]] = [{}]

    def _stored(self, pallet: str, item: str, key: Key) -> tuple[bool, Any]:
        for layer in reversed(self._layers):
            if (pallet, item, key) in layer:
                value = layer[pallet, item, key]
                return value is not None, copy.deepcopy(value)
        return self.store.get(pallet, item, key, self._base)

    def items(self, pallet: str, item: str, *prefix: Any) -> list[tuple[Key, Any]]:
        found = dict(self.store.items(pallet, item, prefix, self._base))
        for layer in self._layers:
            for (other_pallet, other_item, key), value in layer.items():
                if (other_pallet, other_item) == (pallet, item) and key[: len(prefix)] == prefix:
                    if value is None:
                        found.pop(key, None)
                    else:
                        found[key] = copy.deepcopy(value)
        return sorted(found.items(), key=_key_order)

    def put(self, pallet: str, item: str, *key: Any, value: Any) -> None:
        """Store a value; None removes the key."""
        self._layers[-1][pallet, item, key] = value

    def __setitem__(self, where: tuple[Any, ...], value: Any) -> None:
        item, *key = where
        self.put(SUBTENSOR, item, *key, value=value)

    def __delitem__(self, where: tuple[Any, ...]) -> None:
        self[where] = None

    def emit(self, pallet: str, event: str, attributes: Any = None) -> None:
        """Record an event of the extrinsic that runs now, or of the block's own work before any."""
        self.events.append(
            {
                "phase": "Initialization" if self.position is None else {"ApplyExtrinsic": self.position},
                "extrinsic_idx": self.position,
                "event": {"module_id": pallet, "event_id": event, "attributes": attributes},
                "topics": [],
            }
        )

    @contextmanager
    def layer(self) -> Iterator[None]:
        """Writes and events inside are kept only if nothing is raised."""
        events = len(self.events)
        self._layers.append({})
        try:
            yield
        except BaseException:
            self._layers.pop()
            del self.events[events:]
            raise
        top = self._layers.pop()
        self._layers[-1].update(top)

    @property
    def changes(self) -> dict[tuple[str, str, Key], Any]:
        """What this block has written, to be stored with it."""
        assert len(self._layers) == 1, "a layer is still open"
        return self._layers[0]
