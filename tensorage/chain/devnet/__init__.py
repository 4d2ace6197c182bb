"""A local chain behind the SDK's own seam: one SQLite file, one block producer, any number of processes.

    tensorage devnet up                                         makes the file and its blocks
    bt.Client("local", substrate=open_substrate("devnet"))      an SDK client of it

It is not a node: it runs the calls that a storage subnet needs, with the real runtime's names, checks and
errors, and says so about the rest. It is deliberately looser in three things, each told where it is done:
loopback axons are served, extrinsics live at least ten seconds, and alpha has a fixed price of one TAO.
"""

from __future__ import annotations

import os
from pathlib import Path

from .location import ENVIRONMENT, NETWORK, default_path, is_devnet, locate, url
from .substrate import DevnetSubstrate

__all__ = [
    "ENVIRONMENT",
    "NETWORK",
    "DevnetSubstrate",
    "default_path",
    "is_devnet",
    "locate",
    "open_substrate",
    "url",
]


def open_substrate(network_or_endpoint: str | Path | None = None) -> DevnetSubstrate:
    """A connection to a devnet, to be given to `bittensor.Client(substrate=...)`, which opens it.

    The SDK caches names and symbols of the networks it has seen in the user's home; for a devnet, whose
    names are nobody else's, they are kept beside its file instead, unless the environment says where.

    Args:
        network_or_endpoint: `devnet`, `sqlite:///absolute/path` or a path.

    Raises:
        UsageError: it names no devnet.
    """
    path = locate(network_or_endpoint)
    keep_caches_beside(path)
    return DevnetSubstrate(path)


def keep_caches_beside(path: Path) -> None:
    """Point the SDK's display caches, where they are not set, beside the devnet."""
    os.environ.setdefault("BTCLI_TOKEN_SYMBOLS_CACHE", f"{path}.symbols.json")
    os.environ.setdefault("BTCLI_SUBNET_NAMES_CACHE", f"{path}.names.json")
