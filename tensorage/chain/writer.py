"""Writing to the chain under one hotkey: one extrinsic at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bittensor import Client, ExtrinsicResult, Policy, Signer

from ..errors import ChainError, NotRegisteredError
from .connection import Connection
from .extrinsics import Sent, send
from .wallet import Hotkey

MAX_FEE_TAO = "0.05"

# In a block is enough: what a reorganisation undoes goes back to the pool, and we look before we repeat.
INCLUDED: dict[str, Any] = {"wait_for_inclusion": True, "wait_for_finalization": False}


def narrow_policy(netuid: int) -> Policy:
    """What a neuron may sign: nothing that spends, no fee worth mentioning, on this subnet only."""
    return Policy(
        max_fee_tao=MAX_FEE_TAO,
        max_spend_tao=0,
        allowed_netuids=[netuid],
        allow_raw_calls=True,  # the commitments pallet has no intent of its own
    )


class Writer:
    """Sends extrinsics of `hotkey` over `connection`; without a hotkey it refuses to."""

    def __init__(self, connection: Connection, hotkey: Hotkey | None) -> None:
        self._connection = connection
        self._hotkey = hotkey
        self._sending = asyncio.Lock()

    @property
    def hotkey(self) -> Hotkey:
        if self._hotkey is None:
            raise ChainError("this needs a hotkey, and the chain was opened without one")
        return self._hotkey

    async def send(self, submit: Callable[[Client, Signer], Awaitable[ExtrinsicResult]]) -> Sent:
        """Sends what `submit` makes and waits for its block, but not for longer than about ten of them."""
        async with self._sending:
            try:
                client = await self._connection.open()
            except ChainError as error:
                return Sent("unsent", error.message)
            within = 30 + 10 * (self._connection.block_time or 0)
            sent = await send(self.hotkey.keypair, lambda key: submit(client, key), within=within)
            if sent.status == "unknown":
                await self._connection.drop(client)
            return sent

    def not_registered(self) -> NotRegisteredError:
        """The error of a hotkey that is not on the subnet, with the command that puts it there."""
        settings, key = self._connection.settings, self.hotkey
        if settings.is_devnet:
            command = f"tensorage devnet register{settings.devnet_flag}"
            wallet = f" {key.files.flags}" if key.files else ""
        else:
            command = f"btcli subnets register -n {settings.label}"
            wallet = f" {key.files.btcli_flags}" if key.files else ""
        return NotRegisteredError(
            f"hotkey {key.ss58} is not registered on subnet {settings.netuid} of {settings.label}",
            remedy=f"Register it with: {command} --netuid {settings.netuid}{wallet}",
        )
