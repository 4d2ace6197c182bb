"""Data directories for tests of the allocator."""

import random
from pathlib import Path

from tensorage.allocator.layout import Identity
from tensorage.allocator.plan import Headroom, Target
from tensorage.allocator.store import Sector
from tensorage.allocator.upkeep import DataDirectory
from tensorage.seal import DEV, Sealer

ME = Identity(genesis=bytes(range(32)), netuid=7, hotkey=b"m" * 32, profile=0)


def fill(data: DataDirectory, sectors: int, workers: int = 2) -> None:
    """Recover, plan and fill, as the miner does."""
    with data.filling():
        data.recover()
        data.apply(data.plan(Target(size=sectors * data.identity.sectors.size), Headroom(size=0)))
        assert data.fill(workers)


def is_sealed(data: DataDirectory, sector: Sector) -> bool:
    """Whether the file holds, byte for byte, what sealing gives."""
    sealer = Sealer(DEV)
    return sector.path.read_bytes() == bytes(sealer.seal(data.identity.sector_id(sector.index)))


def flip(path: Path, offset: int | None = None, *, seed: int = 0) -> int:
    """Change one byte of a file in place; returns its offset."""
    size = path.stat().st_size
    at = random.Random(seed).randrange(size) if offset is None else offset % size
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))
    return at
