"""Who data belong to, and where their files are.

<root>/sn<netuid>-<hotkey>/                    one directory an identity on each disk
    miner.sqlite                               on the first disk only
    fill.lock, hole.lock, use.lock, serve.lock likewise
    disk.id                                    names the disk, wherever it is mounted
    sectors/<hh>/<index, 16 hex>.sector        hh: the last two digits of the index
    sectors/<hh>/<index, 16 hex>.sealing       not finished, never trusted
    shards/<hh>/<ticket hash, 64 hex>.shard    hh: the first two digits of the hash
    shards/<hh>/<ticket hash, 64 hex>.coming   not finished, never trusted
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .. import seal
from ..chain.address import ss58
from ..seal import Profile

DATABASE = "miner.sqlite"
FILL_LOCK = "fill.lock"
HOLE_LOCK = "hole.lock"
USE_LOCK = "use.lock"
SERVE_LOCK = "serve.lock"
DISK_ID = "disk.id"
SECTORS = "sectors"
UNFINISHED = ".sealing"
SHARDS = "shards"
COMING = ".coming"

_SHARD_NAME = re.compile(r"([0-9a-f]{64})\.(shard|coming)")
_NAME = re.compile(r"([0-9a-f]{16})\.(sector|sealing)")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose sectors these are; every sealed byte depends on all of it.

    Attributes:
        genesis: hash of block 0 of the chain, 32 bytes.
        hotkey: the miner's public key, 32 bytes.
        profile: number of the sector profile.
    """

    genesis: bytes
    netuid: int
    hotkey: bytes
    profile: int

    @property
    def sectors(self) -> Profile:
        """Size and shape of the sectors."""
        return seal.profile(self.profile)

    @property
    def directory_name(self) -> str:
        return directory_name(self.netuid, self.hotkey)

    def sector_id(self, index: int) -> bytes:
        """The id of one sector: what it is sealed from."""
        return seal.sector_id(self.genesis, self.netuid, self.hotkey, self.sectors, index)

    def __str__(self) -> str:
        return (
            f"hotkey {ss58(self.hotkey)} on subnet {self.netuid} of chain {self.genesis.hex()[:16]} "
            f"with profile {self.profile}"
        )


def directory_name(netuid: int, hotkey: bytes) -> str:
    """The directory of a hotkey on a subnet, under each root."""
    return f"sn{netuid}-{ss58(hotkey)}"


def sector_path(directory: Path, index: int) -> Path:
    """The file of a sector in a data directory."""
    name = f"{index:016x}"
    return directory / SECTORS / name[-2:] / f"{name}.sector"


def parse_sector_path(path: Path) -> tuple[int, bool] | None:
    """(index, whether it is finished) of a file that has one of our names; None of any other."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    return int(match[1], 16), match[2] == "sector"


def shard_path(directory: Path, ticket_hash: bytes) -> Path:
    """The file of a shard in a data directory."""
    name = ticket_hash.hex()
    return directory / SHARDS / name[:2] / f"{name}.shard"


def parse_shard_path(path: Path) -> tuple[bytes, bool] | None:
    """(ticket hash, whether it is finished) of a file that has one of our names; None of any other."""
    match = _SHARD_NAME.fullmatch(path.name)
    if match is None:
        return None
    return bytes.fromhex(match[1]), match[2] == "shard"
