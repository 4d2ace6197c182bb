"""Which till a chain's name means."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ...chain.network import ChainSettings
from ...chain.transfers import Ledger
from ..payments.tao import TaoTill
from ..payments.till import Till
from .publishing import TAO


@asynccontextmanager
async def open_till(
    chain: str, facilitator: str | None, rpc: str | None, settings: Callable[[], ChainSettings]
) -> AsyncIterator[Till]:
    """What judges payments on a chain.

    Args:
        chain: "bittensor", or an EVM chain.
        facilitator: URL of who settles on an EVM chain; None for the usual one.
        rpc: URL of a node of the EVM chain, to ask about payments in doubt; None: nobody is asked.
        settings: of the node that is asked about payments in TAO.

    Raises:
        UsageError: there is no such chain, or a package is missing.
        ChainError: the chain is away.
    """
    if chain == TAO:
        async with Ledger(settings()) as ledger:
            yield TaoTill(ledger)
        return
    from ..payments import evm  # noqa: PLC0415 - needs the extra `evm`

    async with evm.open_till(chain, facilitator, rpc=rpc) as till:
        yield till
