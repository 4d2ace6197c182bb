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
from collections.abc import Collection

from .. import seal
from ..displaced import Sealed, seal_again


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


def sealed_sector(
    genesis: bytes, netuid: int, miner: bytes, profile: int, sector: int, named: Collection[int] = ()
) -> tuple[Sealed, float]:
    """The chunks that a sector must have, and the seconds of a core that sealing it took.

    Needs memory of one sector: 1 GiB for profile 1.

    Args:
        named: chunks that were displaced, of which the inner nodes are wanted too.
    """
    started = time.process_time()
    size = seal.profile(profile)
    sealed = seal_again(seal.Sealer(size), seal.sector_id(genesis, netuid, miner, size, sector), named)
    return sealed, time.process_time() - started
