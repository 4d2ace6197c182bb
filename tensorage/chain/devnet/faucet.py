"""Money and neurons for a devnet, all through the SDK's own intents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bittensor as bt
from bittensor.keyfiles import Keypair

from ...errors import ChainError, UsageError
from . import open_substrate
from .genesis import ALICE

_LEAST = 10.0  # TAO that an account needs to register and to pay fees


class Signer:
    """A wallet of one key, such as a faucet is."""

    def __init__(self, uri: str) -> None:
        self.coldkey = self.coldkeypub = self.hotkey = self.hotkeypub = Keypair.create_from_uri(uri)


def client(path: Path) -> bt.Client:
    """An SDK client of the devnet in `path`."""
    return bt.Client("local", substrate=open_substrate(path))


def raise_for(result: bt.ExtrinsicResult, what: str) -> None:
    """Turn a failed submission into an error for people.

    Raises:
        ChainError: it failed.
    """
    if not result.success:
        name = result.error.name if result.error is not None else None
        remedy = result.error.remediation if result.error is not None else ""
        raise ChainError(f"{what} failed: {name or result.message}", remedy=remedy)


async def fund(chain: bt.Client, address: str, amount_tao: float) -> None:
    """Bring an account's free balance up to `amount_tao`, out of the faucet's."""
    missing = amount_tao - float((await chain.balances.get(address)).tao)
    if missing > 0:
        transfer = bt.Transfer(dest_ss58=address, amount_tao=missing)
        raise_for(await chain.execute(transfer, Signer(ALICE)), f"funding {address}")


async def register(chain: bt.Client, wallet: Any, netuid: int) -> int:
    """Fund a wallet's coldkey and register its hotkey; the uid. One that is registered is left as it is."""
    hotkey = wallet.hotkeypub.ss58_address
    uid = await chain.neurons.uid(hotkey_ss58=hotkey, netuid=netuid)
    if uid is None:
        price = float((await chain.subnets.burn(netuid)).tao)
        await fund(chain, wallet.coldkeypub.ss58_address, 2 * price + _LEAST)
        result = await chain.execute(bt.BurnedRegister(netuid=netuid), wallet)
        if result.error is None or result.error.name != "HotKeyAlreadyRegisteredInSubNet":
            raise_for(result, "registration")
        uid = await chain.neurons.uid(hotkey_ss58=hotkey, netuid=netuid)
    if uid is None:
        raise ChainError(f"{hotkey} has no uid on subnet {netuid} after its registration")
    return int(uid)


async def stake(chain: bt.Client, wallet: Any, netuid: int, amount_tao: float) -> None:
    """Fund a wallet's coldkey and stake `amount_tao` to its hotkey."""
    await fund(chain, wallet.coldkeypub.ss58_address, amount_tao + _LEAST)
    intent = bt.AddStake(netuid=netuid, hotkey_ss58=wallet.hotkeypub.ss58_address, amount_tao=amount_tao)
    raise_for(await chain.execute(intent, wallet), "staking")


def open_wallet(name: str, hotkey: str, path: Path, *, create: bool) -> bt.Wallet:
    """The wallet, with both keys; made, without a password, if `create` and they are missing.

    Raises:
        UsageError: a key is missing or cannot be opened.
    """
    wallet = bt.Wallet(name=name, hotkey=hotkey, path=str(path.expanduser()))
    folder = path.expanduser() / name
    if create:
        if not (folder / "coldkey").exists():
            wallet.create_new_coldkey(use_password=False, suppress=True)
        if not (folder / "hotkeys" / hotkey).exists():
            wallet.create_new_hotkey(suppress=True)
    for what, file in (("coldkey", folder / "coldkey"), ("hotkey", folder / "hotkeys" / hotkey)):
        if not file.exists():
            raise UsageError(
                f"the wallet {name} has no {what} at {file}",
                remedy=f"Pass --create-wallet, or run `btcli wallet create -w {name} -H {hotkey} "
                f"--wallet-path {path} --no-password`.",
            )
    return wallet
