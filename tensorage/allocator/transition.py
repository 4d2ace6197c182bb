"""What has become of a sector between two commitments: so that slots are checked without a byte of filler.

Where filler has given way to a shard, the node of the filler's first leaves and the siblings on its way up
lead to the chunk's root before, and the shard's own root with the same siblings to the one after.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from . import slots
from .slots import split
from .store import Store


@dataclass(frozen=True, slots=True)
class Change:
    """A chunk of filler that a shard takes the front of now.

    Attributes:
        node: root of as many first leaves as the shard has, before.
        siblings: from that node up to the chunk's root, before and after.
    """

    chunk: int
    node: bytes
    siblings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """A sector under an older commitment and under the newest.

    Attributes:
        before, after: the roots of its chunks, 32 bytes each.
        changed: the chunks that were filler and have a shard now; others that differ are not explained.
    """

    before: bytes
    after: bytes
    changed: tuple[Change, ...]


def transition(store: Store, index: int, before_seq: int) -> Transition | None:
    """What has become of a sector since commitment `before_seq`; None when that is not known."""
    newest = store.commitment()
    if newest is None:
        return None
    seq = newest.commitment.seq
    before = store.committed_chunk_roots(index, before_seq)
    after = store.committed_chunk_roots(index, seq)
    filler = store.chunk_roots(index)
    if before is None or after is None or filler is None:
        return None
    were, are = split(before), split(filler)
    taken = [
        slot
        for slot in store.read(lambda db: slots.slots_at(db, index, seq))
        if were[slot.chunk] == are[slot.chunk]
    ]

    def changes(db: sqlite3.Connection) -> list[Change]:
        found = []
        for slot in taken:
            key = index * store.identity.sectors.chunks + slot.chunk
            row = db.execute("SELECT nodes FROM chunks WHERE id = ?", (key,)).fetchone()
            if row is not None:
                found.append(
                    Change(
                        slot.chunk,
                        slots.first_node(row[0], slot.leaves),
                        tuple(slots.siblings(row[0], slot.leaves)),
                    )
                )
        return found

    return Transition(before, after, tuple(store.read(changes)))
