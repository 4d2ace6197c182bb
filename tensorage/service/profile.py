"""Which sector profile a network takes."""

from __future__ import annotations

from ..chain.genesis import FINNEY_GENESIS
from ..chain.network import ChainSettings
from ..errors import UsageError
from ..seal import DEV, MAIN


def is_harmless(chain: ChainSettings, genesis: bytes | None = None) -> bool:
    """Whether it is a chain without value, where nothing needs proof: a devnet, or a local node's own chain.

    Args:
        genesis: hash of block 0, once it is known. A node on this machine may follow finney.
    """
    return chain.is_local and genesis != FINNEY_GENESIS


def profile_of(number: int | None, chain: ChainSettings) -> int:
    """The sector profile to use: the one asked for, else the small one on a devnet, the main one elsewhere.

    Raises:
        UsageError: the small one, on a chain where others would believe in it.
    """
    if number is None:
        return (DEV if chain.is_devnet else MAIN).number
    if number == DEV.number and not is_harmless(chain):
        raise UsageError(
            f"profile {DEV.number} proves nothing, so it is for a devnet or a local node only",
            remedy="Leave --profile out",
        )
    return number
