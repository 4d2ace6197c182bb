"""Paying in TAO with a reference, and reading such payments off the chain.

A payment is one extrinsic, `Utility.batch_all` of `Balances.transfer_keep_alive` and
`System.remark_with_event`: both happen or neither. The events of that extrinsic in its finalized block
are the proof of it, `Balances.Transfer` of the money and `System.Remarked` with the BLAKE2b-256 hash of
the remark; events that were rolled back are not there, and events of other extrinsics do not count.

Rules for who pays. The SDK's policy bounds the fee and what is spent before the key is asked to sign. The
signed bytes are kept by the caller before they leave. They name an account's nonce and live for an era, so
the same bytes, sent any number of times, move money once; and they never can any more when a finalized block
has used up the nonce otherwise, or when the last block of the era is final.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any, TypeVar

from bittensor import Balance, Client, Policy, Substrate, calls
from bittensor._transport.contract import SignedExtrinsic
from bittensor.intents import Intent

from ..encoding import HASH_SIZE, fixed
from ..errors import ChainError, TensorageError, UsageError
from . import convert
from .address import public_key
from .coldkey import Coldkey
from .connection import Connection, OnConnection
from .extrinsics import judge
from .faults import ANY
from .network import ChainSettings, Opener, open_chain
from .types import BlockRef

__all__ = ["Extrinsic", "Ledger", "Remark", "SignedTransfer", "Transfer", "remark_hash"]

T = TypeVar("T")

MAX_FEE_TAO = "0.05"
EXISTENTIAL_DEPOSIT = 500  # rao below which an account is not; transfer_keep_alive leaves as much
#: An extrinsic may be included for so many blocks, a power of two, and for at least so many seconds.
ERA = 64
ERA_SECONDS = 120.0
_MOST_ERA = 65_536
_NO_SPENDING = Policy(max_fee_tao=0, max_spend_tao=0)


@dataclass(frozen=True, slots=True)
class Transfer:
    """TAO that moved: `amount` in rao, SS58 addresses."""

    sender: str
    dest: str
    amount: int


@dataclass(frozen=True, slots=True)
class Remark:
    """The 32-byte BLAKE2b hash of a remark, and the account that made it."""

    sender: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class Extrinsic:
    """What one extrinsic of a finalized block did. `time` is the block's, in unix seconds."""

    block: BlockRef
    index: int
    time: int
    succeeded: bool
    transfers: tuple[Transfer, ...]
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class SignedTransfer:
    """A payment that is signed.

    Attributes:
        data, hash: the extrinsic, and its 32-byte BLAKE2b hash.
        payer, nonce: whose it is, and its number.
        start: a finalized block before which it cannot be.
        expires: the last block in which it can be.
    """

    data: bytes = field(repr=False)
    hash: bytes
    payer: str
    nonce: int
    start: int
    expires: int

    def json(self) -> dict[str, Any]:
        """The payment as JSON, which `read` takes."""
        return {
            "data": self.data.hex(),
            "hash": self.hash.hex(),
            "payer": self.payer,
            "nonce": self.nonce,
            "start": self.start,
            "expires": self.expires,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> SignedTransfer:
        """The payment that `json` wrote."""
        return cls(
            bytes.fromhex(document["data"]),
            bytes.fromhex(document["hash"]),
            document["payer"],
            document["nonce"],
            document["start"],
            document["expires"],
        )


def remark_hash(remark: bytes) -> bytes:
    """The hash by which an event names a remark."""
    return blake2b(remark, digest_size=32).digest()


class Ledger(OnConnection):
    """A chain, to read payments from and to make them on. An asynchronous context manager.

    Every method that asks the chain may raise ChainError: it is away, or said what cannot be read.

    Args:
        clock: seconds, monotonic.
        opener: makes the SDK's access to the chain.
    """

    def __init__(
        self,
        settings: ChainSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        opener: Opener = open_chain,
    ) -> None:
        super().__init__(Connection(settings, policy=_NO_SPENDING, clock=clock, opener=opener))

    # Reading

    async def head(self) -> int:
        """The height of the best block."""
        return await self._connection.head()

    async def extrinsic(self, block_hash: bytes, index: int) -> Extrinsic | None:
        """What an extrinsic of a finalized block did; None while the block is unknown or not final.

        A block that is final on another chain than the one that the node follows is not final.
        """
        name = _hex(fixed(block_hash, HASH_SIZE, "block hash"))

        async def locate(backend: Substrate) -> int | None:
            """The block's height, if the node has it."""
            try:
                return int(await backend.query("System", "Number", [], name))
            except ANY as error:
                if _is_unknown_block(error):
                    return None
                raise

        number = await self._ask("a block", locate)
        if number is None or number > await self._connection.finalized():
            return None
        if (await self._connection.block(number)).hash != block_hash:
            return None

        block = BlockRef(number, block_hash)

        async def read(backend: Substrate) -> Extrinsic:
            events = await backend.events(name)
            milliseconds = int(await backend.query("Timestamp", "Now", [], name))
            return _extrinsic(block, index, milliseconds // 1000, events)

        return await self._ask(f"the events of block {number}", read)

    async def balance(self, address: str) -> int:
        """The free rao of an account."""
        free = await self._connection.read("a balance", lambda client: client.balances.get(address))
        return int(free.rao)

    # Paying

    async def sign(
        self, key: Coldkey, dest: str, amount: int, remark: bytes, *, max_spend: int, max_seconds: float
    ) -> SignedTransfer:
        """Sign a payment of `amount` rao with a remark, and send nothing.

        Args:
            max_spend: rao that the SDK's policy lets it spend, fee apart.
            max_seconds: after which the payment must no longer be able to land.

        Raises:
            UsageError: the policy or the balance forbids it, or there is not time enough; nothing was signed.
        """
        public_key(dest)  # or the chain would say so later
        era = self._era()
        if era * self.block_time > max_seconds:
            raise UsageError(
                f"a payment may take {era * self.block_time:.0f} s, and only {max_seconds:.0f} s are left",
                remedy="Ask the seller for a newer offer, and try again",
            )
        intent = _ReferencedTransfer(dest, amount, remark)
        policy = Policy(max_fee_tao=MAX_FEE_TAO, max_spend_tao=Balance.from_rao(max_spend))
        plan = await self._connection.read(
            "the fee", lambda client: client.plan(intent, key.keypair, policy=policy)
        )
        if not plan.ok:
            raise UsageError(
                f"the payment is not within its limits: {'; '.join(map(str, plan.violations))}",
                remedy="Nothing was signed",
            )
        needed = amount + EXISTENTIAL_DEPOSIT + (int(plan.fee.rao) if plan.fee else 0)
        if (free := await self.balance(key.ss58)) < needed:
            raise UsageError(
                f"coldkey {key.ss58} has {_tao(free)} TAO, the payment with its fee takes {_tao(needed)}",
                remedy="Send it more TAO",
            )
        if amount < EXISTENTIAL_DEPOSIT and await self.balance(dest) + amount < EXISTENTIAL_DEPOSIT:
            raise UsageError(
                f"account {dest} would not exist with {amount} rao; the least is {EXISTENTIAL_DEPOSIT}",
                remedy="Ask the seller for another payee or price",
            )
        start = await self._connection.finalized()

        async def sign(backend: Substrate) -> tuple[bytes, str, int]:
            nonce = await backend.account_next_index(key.ss58)
            data, name = await backend.sign_extrinsic(plan.call, key.keypair, nonce=nonce, period=era)
            return bytes(data), name, nonce

        data, name, nonce = await self._ask("what to sign", sign)
        signed_by = max(await self._connection.head(), start)
        return SignedTransfer(data, convert.block_hash(name), key.ss58, nonce, start, signed_by + era)

    async def submit(self, payment: SignedTransfer, key: Coldkey) -> str | None:
        """Send a signed payment, again if need be; why the chain refuses it for certain, None otherwise."""
        extrinsic = SignedExtrinsic(payment.data, _hex(payment.hash))

        async def send(client: Client) -> Any:
            return await self._connection.backend.submit_signed(
                extrinsic, key.keypair, wait_for_inclusion=False, wait_for_finalization=False
            )

        sent = judge(await self._connection.read("the answer to a payment", send))
        return sent.message if sent.status == "failed" else None

    async def find(self, payment: SignedTransfer, after: int) -> tuple[Extrinsic | None, int, bool]:
        """Look for a payment in the finalized blocks above height `after`.

        Returns:
            What it did, None if it is not there; the height up to which was looked; and whether, not being
            there, it never can be any more.
        """
        last = min(await self._connection.finalized(), payment.expires)
        for number in range(max(after, payment.start) + 1, last + 1):
            block = await self._connection.block(number)
            index = await self._ask(f"block {number}", partial(_index, payment, block))
            if index is not None:
                done = await self.extrinsic(block.hash, index)
                if done is None:
                    raise ChainError(f"block {number} is final no more; ask another node")
                return done, number, False
        if last >= payment.expires:
            return None, last, True
        if last <= payment.start:
            return None, last, False
        name = _hex((await self._connection.block(last)).hash)

        async def used(backend: Substrate) -> bool:
            account = await backend.query("System", "Account", [payment.payer], name)
            return int(account["nonce"]) > payment.nonce

        return None, last, await self._ask("a nonce", used)

    def _era(self) -> int:
        """Blocks that a payment lives: a power of two."""
        blocks = ERA
        while blocks * self.block_time < ERA_SECONDS and blocks < _MOST_ERA:
            blocks *= 2
        return blocks

    async def _ask(self, what: str, ask: Callable[[Substrate], Awaitable[T]]) -> T:
        async def with_backend(_: Client) -> T:
            return await ask(self._connection.backend)

        return await self._connection.read(what, with_backend)


@dataclass
class _ReferencedTransfer(Intent):
    """A transfer and a remark, together or not at all."""

    op = "referenced_transfer"
    signer = "coldkey"
    wraps = (("Utility", "batch_all"),)

    dest_ss58: str
    amount: int
    remark: bytes

    async def build(self, substrate: Substrate, wallet: Any) -> Any:
        transfer = calls.Balances.transfer_keep_alive(dest=self.dest_ss58, value=self.amount)
        remark = calls.System.remark_with_event(remark=self.remark)
        both = [await substrate.compose(transfer), await substrate.compose(remark)]
        return await substrate.compose(calls.Utility.batch_all(calls=both))

    def summary(self) -> str:
        return f"transfer {_tao(self.amount)} TAO to {self.dest_ss58} with reference {self.remark.hex()}"

    def spend(self) -> Balance:
        return Balance.from_rao(self.amount)


async def _index(payment: SignedTransfer, block: BlockRef, backend: Substrate) -> int | None:
    """The payment's index in a block that holds it."""
    found = await backend.find_extrinsic(_hex(payment.hash), _hex(block.hash))
    if found is None:
        return None
    return int(str(found.extrinsic_id).rpartition("-")[2])


def _extrinsic(block: BlockRef, index: int, seconds: int, records: list[dict[str, Any]]) -> Extrinsic:
    """What the events of a block say of one extrinsic."""
    transfers, remarks, outcomes = [], [], []
    for record in records:
        if record.get("extrinsic_idx") != index:
            continue
        event = record["event"]
        kind, attributes = (event["module_id"], event["event_id"]), event["attributes"]
        if kind == ("Balances", "Transfer"):
            sender, dest, amount = attributes["from"], attributes["to"], attributes["amount"]
            transfers.append(Transfer(str(sender), str(dest), int(amount)))
        elif kind == ("System", "Remarked"):
            remarks.append(Remark(str(attributes["sender"]), convert.block_hash(attributes["hash"])))
        elif kind in (("System", "ExtrinsicSuccess"), ("System", "ExtrinsicFailed")):
            outcomes.append(kind[1])
    succeeded = outcomes == ["ExtrinsicSuccess"]
    return Extrinsic(block, index, seconds, succeeded, tuple(transfers), tuple(remarks))


def _is_unknown_block(error: Exception) -> bool:
    """Whether the node says that it has no such block; that it has dropped the state of one is not that."""
    text = str(error.message if isinstance(error, TensorageError) else error).lower()
    if "discarded" in text:
        return False
    return any(words in text for words in ("unknownblock", "unknown block", "header was not found"))


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"


def _tao(rao: int) -> str:
    """An amount for people, exact."""
    whole, part = divmod(rao, 10**9)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")
