"""The one genesis hash that is known without asking: finney's."""

from __future__ import annotations

from bittensor.settings import FINNEY_GENESIS_HASH

from .network import ChainSettings

FINNEY_GENESIS = bytes.fromhex(str(FINNEY_GENESIS_HASH).removeprefix("0x"))


def known_genesis(settings: ChainSettings) -> bytes | None:
    """The 32-byte hash of block 0, where the settings name finney itself; None for any other chain."""
    return FINNEY_GENESIS if settings.label == "finney" else None
