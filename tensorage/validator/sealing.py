"""Sealing a sector again, for an audit, in a worker process.

The process imports the pure core and numpy, nothing else, and gives way to everything: an audit may wait, a
challenge may not.
"""

from __future__ import annotations

import os
import time

from .. import seal


def give_way() -> None:
    """Lower the priority of this process."""
    os.nice(10)


def sealed_chunk_roots(
    genesis: bytes, netuid: int, miner: bytes, profile: int, sector: int
) -> tuple[list[bytes], float]:
    """The chunk roots that a sector must have, and the seconds of a core that sealing it took.

    Needs memory of one sector: 1 GiB for profile 1.
    """
    started = time.process_time()
    size = seal.profile(profile)
    roots = seal.chunk_roots(seal.Sealer(size), seal.sector_id(genesis, netuid, miner, size, sector))
    return roots, time.process_time() - started
