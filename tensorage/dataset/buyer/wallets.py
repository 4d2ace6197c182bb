"""Which money pays, from the options of `buy`.

    --chain bittensor           TAO of the wallet's coldkey (--wallet.name) on --subtensor.network
    --chain base-sepolia, ...   USDC of the secp256k1 key in --key FILE

Prices and limits are in the smallest unit: rao, or a millionth of a dollar.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ...chain.coldkey import load_coldkey
from ...chain.network import ChainSettings
from ...chain.transfers import Ledger
from ...errors import UsageError
from ..payments.evm import NAMES
from ..payments.evm_extra import usdc
from ..payments.evm_wallet import EvmWallet
from ..payments.paying import Wallet
from ..payments.policy import Limits
from ..payments.tao import ASSET, TaoWallet

BITTENSOR = "bittensor"
_MOST = 4096


@dataclass(frozen=True)
class Money:
    """What the options say.

    Attributes:
        max_price: the most that is paid, in the smallest unit; None: nothing is.
        pay_to: the only payees, where any are named.
        wallet: (name, path) of the Bittensor wallet.
        key: file with a secp256k1 key.
        rpc: URL of a node of an EVM chain.
    """

    chain: str
    max_price: int | None
    pay_to: tuple[str, ...]
    settings: ChainSettings | None
    wallet: tuple[str, Path]
    key: Path | None
    rpc: str | None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Wallet, Limits]]:
        """The wallet, and what it may pay.

        Raises:
            UsageError: an option is missing or wrong, or the chain cannot be reached.
        """
        if self.max_price is None or self.max_price <= 0:
            raise UsageError(
                "--join pays, and without a limit it would pay any price",
                remedy="Name the most that you pay with --max-price, in the smallest unit, such as rao",
            )
        if self.chain == BITTENSOR:
            if self.settings is None:
                raise ValueError("paying in TAO needs a chain")
            if self.key is not None:
                raise UsageError(
                    "--key is a secp256k1 key, which holds no TAO", remedy="Leave it out, or name --chain"
                )
            key = load_coldkey(*self.wallet)
            async with Ledger(self.settings) as ledger:
                tao = TaoWallet(ledger, key, max_spend=self.max_price)
                yield tao, self._limits(self.max_price, tao.network, ASSET)
            return
        network = NAMES.get(self.chain, self.chain)
        token = usdc(network)
        if self.key is None:
            raise UsageError(f"paying on {self.chain} needs a key", remedy="Name its file with --key FILE")
        evm = EvmWallet(network, read_secret(self.key), rpc=self.rpc)
        yield evm, self._limits(self.max_price, network, token.address)

    def _limits(self, most: int, network: str, asset: str) -> Limits:
        return Limits(most, frozenset({network}), frozenset({asset}), frozenset(self.pay_to) or None)


def read_secret(path: Path) -> bytes:
    """The 32 bytes of a secp256k1 key in a file, one line of hex.

    Raises:
        UsageError: no such file, no key, or others may read it.
    """
    path = path.expanduser()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            raw = os.read(fd, _MOST)
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", remedy="Name a key with --key"
        ) from error
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in (0, os.geteuid()):
        raise UsageError(f"{path} can be read by others", remedy=f"chmod 600 {path}, and think of a new key")
    try:
        secret = bytes.fromhex(raw.decode("ascii").strip().removeprefix("0x"))
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise UsageError(f"{path} holds no secp256k1 key", remedy="It should be one line of 64 hex digits")
    return secret
