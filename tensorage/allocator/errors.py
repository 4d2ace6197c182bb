"""What can be wrong with stored data."""

from __future__ import annotations

from pathlib import Path

from ..errors import StorageError, UsageError


class DamagedSectorError(StorageError):
    """A sector's file is missing, short, unreadable or not what was sealed. It is quarantined."""

    def __init__(self, index: int, path: Path, why: str) -> None:
        super().__init__(
            f"sector {index} is damaged: {path} {why}",
            remedy="It is quarantined and will be sealed again; check the disk if this happens often",
        )
        self.index = index
        self.path = path
        self.why = why


class DamagedShardError(StorageError):
    """A shard's file is missing, short, unreadable or not what was stored. Its slot ends."""

    def __init__(self, ticket_hash: bytes, path: Path, why: str) -> None:
        super().__init__(
            f"the shard of ticket {ticket_hash.hex()} is damaged: {path} {why}",
            remedy="Its slot is given back; check the disk if this happens often",
        )
        self.ticket_hash = ticket_hash
        self.path = path
        self.why = why


class SupersededError(StorageError):
    """What was asked for belongs to a commitment that newer ones have taken the place of."""


class BusyError(UsageError):
    """Another process is filling the same data directory."""


class NoSpaceError(UsageError):
    """A disk is full, or has not room for one sector."""


class SealingStoppedError(StorageError):
    """The worker processes could not go on."""
