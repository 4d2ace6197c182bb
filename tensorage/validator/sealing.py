"""Sealing a sector again, for an audit, in a worker process.

The process imports the pure core and numpy, nothing else, and gives way to everything: an audit may wait, a
challenge may not.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

from .. import seal


def begin_worker() -> None:
    """Lower the priority of this process, and have it end with the one that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    os.nice(10)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent leaves nobody to tell


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
