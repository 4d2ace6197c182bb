"""When a miner commits to what it keeps.

A commitment is worth most when it covers all that is sealed, and costs every validator a listing and an
audit. So while a miner fills there is at most one a tempo; the first is made at once. What went missing is
waited for during one tempo (a damaged sector is sealed again in that time and was never missing to anybody
who counts), and what was given up on purpose is left out of the next commitment as soon as the tempo allows.

A sector that is kept under another root than the committed one has not been lost: clients' shards took the
place of filler in it, or filler took back theirs. Until the next commitment both answered ones stay good, and
what only the older of them has goes on taking space; so one more follows, even where nothing else changes.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable, Collection, Sequence

from ..allocator.store import Store
from ..commitment import Commitment, Entry, SignedCommitment
from ..hashchain import Sign

log = logging.getLogger(__name__)


class Change(enum.Enum):
    """How what is kept differs from what is committed to."""

    NONE = "none"
    LINGERING = "space that only an older commitment needs"
    GROWN = "grown"
    DISPLACED = "clients' shards"
    DAMAGED = "damaged"
    GIVEN_UP = "given up"


def change_of(committed: Sequence[Entry], kept: Sequence[Entry], planned: Collection[int]) -> Change:
    """What changed since the newest commitment; of several changes, the one that decides when to commit.

    Args:
        committed: entries of the newest commitment, none when there is no commitment.
        kept: entries of the sectors that are sealed now.
        planned: indices of all sectors that the miner means to keep, sealed or not.
    """
    roots = dict(kept)
    lost = [index for index, _ in committed if index not in roots]
    if any(index not in planned for index in lost):
        return Change.GIVEN_UP
    if lost:
        return Change.DAMAGED
    if any(roots[index] != root for index, root in committed):
        return Change.DISPLACED
    return Change.GROWN if len(kept) > len(committed) else Change.NONE


def may_commit(
    newest: Commitment | None, head: int, tempo: int, change: Change, damaged_since: int | None = None
) -> bool:
    """Whether to commit now.

    Args:
        newest: the newest commitment, None when there is none.
        head: height of the newest block known.
        tempo: blocks of an epoch.
        damaged_since: the height at which the damage was first seen.
    """
    if change is Change.NONE:
        return False
    if newest is None:
        return True
    if head < newest.block_number + max(1, tempo):
        return False
    if change is Change.DAMAGED:
        return damaged_since is not None and head >= damaged_since + tempo
    return True


class Committer:
    """Makes commitments when they may be made.

    Args:
        store: a connection that nobody waits on while a commitment is written.
        sign: signs with the miner's hotkey.
        planning: held while the plan is being changed.
        head, tempo: as known now, without I/O; the head is None before the first block was seen.
    """

    def __init__(
        self,
        store: Store,
        sign: Sign,
        *,
        planning: threading.Lock,
        head: Callable[[], int | None],
        tempo: Callable[[], int],
    ) -> None:
        self._store = store
        self._sign = sign
        self._planning = planning
        self._head = head
        self._tempo = tempo
        self._damaged_since: int | None = None

    def step(self) -> SignedCommitment | None:
        """Commit if it is time to; the commitment made. Blocks on the disk: call it in a thread.

        Raises:
            StaleChainError: the tempo is not known at the moment.
            StorageError: the database cannot be used.
        """
        head = self._head()
        if head is None:
            return None
        with self._planning:
            return self._commit(head)

    def _commit(self, head: int) -> SignedCommitment | None:
        newest = self._store.commitment()
        committed = [] if newest is None else self._store.listing(newest.commitment.seq)
        planned = {sector.index for sector in self._store.sectors()}
        change = change_of(committed, self._store.entries(), planned)
        if change is Change.NONE and newest is not None and self._store.pending().lingering:
            change = Change.LINGERING
        if change is not Change.DAMAGED:
            self._damaged_since = None
        elif self._damaged_since is None:
            self._damaged_since = head
        last = newest.commitment if newest else None
        if not may_commit(last, head, self._tempo(), change, self._damaged_since):
            return None
        signed = self._store.commit(self._sign, head)
        if signed is not None:
            c = signed.commitment
            log.info(
                "committed seq=%d sectors=%d bytes=%d block=%d why=%r",
                *(c.seq, c.sector_count, c.size, c.block_number, change.value),
            )
        return signed
