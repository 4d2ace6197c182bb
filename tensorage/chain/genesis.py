"""The one genesis hash that is known without asking: finney's."""

from __future__ import annotations

from bittensor.settings import FINNEY_GENESIS_HASH

from .network import ChainSettings


def known_genesis(settings: ChainSettings) -> bytes | None:
    """The 32-byte hash of block 0, where the settings name finney itself; None for any other chain."""
    if settings.label != "finney":
        return None
    return bytes.fromhex(str(FINNEY_GENESIS_HASH).removeprefix("0x"))
