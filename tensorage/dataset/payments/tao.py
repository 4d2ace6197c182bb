"""Paying in TAO: network "bittensor:" and the genesis hash, asset "TAO", amounts in rao.

The payment is a finalized extrinsic that holds a transfer to the payee and, by the same account, a remark of
the reference (see `reference`). The buyer shows {"blockHash", "extrinsicIndex", "claimKey", "signature"}; the
seller looks at its own node. Nobody stands between, and nothing is settled: the money is there or it is not.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import anyio

from ...chain.coldkey import Coldkey
from ...chain.transfers import Extrinsic, Ledger, SignedTransfer, remark_hash
from ...encoding import HASH_SIZE, from_hex, u32
from ...errors import ChainError, UsageError
from .errors import PaymentLost, PaymentRefused, PaymentUndecided, PolicyRefusal, TillAway
from .models import Payment
from .paying import Shown, Way
from .policy import TRANSFER_METHODS
from .reference import Claim, payment_id, sign_claim
from .till import Presented, Settled, Terms

ASSET = "TAO"
MAX_TIMEOUT = 3600
#: Seconds by which a payment may miss the end of its offer: money that has moved cannot be called back.
GRACE = 3600
#: Questions to the chain at one time, whatever many ask to join.
MAX_QUESTIONS = 8
_PAYLOAD = {"blockHash", "extrinsicIndex", "claimKey", "signature"}


def network_id(genesis_hash: bytes) -> str:
    """The id of the network whose block 0 has that hash."""
    return f"bittensor:{genesis_hash.hex()}"


@dataclass(frozen=True, slots=True)
class _Place:
    block_hash: bytes
    index: int

    @property
    def bytes(self) -> bytes:
        return self.block_hash + u32(self.index)


class TaoTill:
    """The seller's side, over an open `Ledger`."""

    asset = ASSET
    max_timeout = MAX_TIMEOUT

    def __init__(self, ledger: Ledger) -> None:
        self.network = network_id(ledger.genesis_hash)
        self._ledger = ledger
        self._asking = asyncio.Semaphore(MAX_QUESTIONS)

    def extra(self) -> dict[str, Any]:
        return {"assetTransferMethod": TRANSFER_METHODS["bittensor"]}

    def identify(self, payment: Payment, terms: Terms) -> Presented:
        payload = payment.payload
        index = payload.get("extrinsicIndex")
        if set(payload) != _PAYLOAD or type(index) is not int or not 0 <= index < 1 << 32:
            raise PaymentRefused(
                "bad_payload", f"the payload of a payment in TAO has {', '.join(sorted(_PAYLOAD))}"
            )
        try:
            place = _Place(from_hex(str(payload["blockHash"]), HASH_SIZE, "blockHash"), index)
        except ValueError as error:
            raise PaymentRefused("bad_payload", str(error)) from error
        reference = Claim.read(payload["claimKey"], payload["signature"]).check(terms.offer.hash, place.bytes)
        return Presented(payment_id(self.network, place.bytes), place.bytes, reference, None, place)

    async def check(self, shown: Presented, terms: Terms, now: int, *, begun: bool) -> Settled:
        place: _Place = shown.detail
        try:
            async with self._asking:
                found = await self._ledger.extrinsic(place.block_hash, place.index)
        except ChainError as error:
            raise TillAway(f"the chain cannot be asked about the payment: {error.message}") from error
        if found is None:
            raise TillAway(
                f"block 0x{place.block_hash.hex()} is not final here",
                reason="payment_not_final",
                retry_after=max(1, round(2 * self._ledger.block_time)),
            )
        return settled(found, shown, terms, self.network)

    async def settle(self, shown: Presented, terms: Terms, *, begun: bool) -> Settled:
        return await self.check(shown, terms, 0, begun=begun)


def settled(found: Extrinsic, shown: Presented, terms: Terms, network: str) -> Settled:
    """What an extrinsic paid for an offer.

    Raises:
        PaymentRefused: nothing, or not enough, or not for this offer.
    """
    offer, wanted = terms.offer, remark_hash(shown.reference)
    where = f"extrinsic {found.index} of block {found.block.number}"
    if not found.succeeded:
        raise PaymentRefused("failed", f"{where} did not succeed")
    payers = {remark.sender for remark in found.remarks if remark.hash == wanted}
    if not payers:
        raise PaymentRefused("not_paid", f"{where} does not carry the reference of this offer and claim key")
    if sum(remark.sender in payers for remark in found.remarks) > len(payers):
        raise PaymentRefused(
            "not_paid", f"{where} carries more than one remark: money pays for one reference"
        )
    moved = [transfer for transfer in found.transfers if transfer.sender in payers]
    ours = [transfer for transfer in moved if transfer.dest == offer.pay_to]
    if not ours:
        raise PaymentRefused("wrong_payee", f"{where} pays nothing to {offer.pay_to}")
    amount = sum(transfer.amount for transfer in ours)
    if amount < offer.amount:
        raise PaymentRefused("too_little", f"{where} pays {amount} rao, the price is {offer.amount}")
    if found.time > min(offer.expires + GRACE, terms.until):
        raise PaymentRefused("too_late", f"{where} is of {found.time}, the offer ended at {offer.expires}")
    return Settled(
        shown.payment_id,
        ours[0].sender,
        network,
        amount,
        f"0x{found.block.hash.hex()}-{found.index}",
    )


class TaoWallet:
    """The buyer's side: a coldkey on an open `Ledger`.

    Args:
        max_spend: rao that the SDK's policy lets one payment spend, apart from the fee.
        patience: seconds to wait for a payment to be final before giving up until the next run.
    """

    def __init__(self, ledger: Ledger, key: Coldkey, *, max_spend: int, patience: float = 1800.0) -> None:
        self.network = network_id(ledger.genesis_hash)
        self.payer = key.ss58
        self._ledger = ledger
        self._key = key
        self._max_spend = max_spend
        self._patience = patience

    async def sign(self, way: Way, now: int) -> dict[str, Any]:
        if way.requirement.asset != ASSET or way.requirement.network != self.network:
            raise PolicyRefusal(
                "other_asset", f"a coldkey pays TAO on {self.network}, not {way.requirement.asset}"
            )
        try:
            signed = await self._ledger.sign(
                self._key,
                way.requirement.payTo,
                way.requirement.atomic,
                way.reference,
                max_spend=self._max_spend,
                max_seconds=way.expires - now,
            )
        except UsageError as error:
            raise PolicyRefusal("over_limit", error.message, remedy=error.remedy) from error
        return signed.json()

    async def send(self, way: Way, signed: dict[str, Any]) -> Shown:
        payment = SignedTransfer.read(signed)
        try:
            with anyio.fail_after(self._patience):
                found = await self._land(payment)
        except (ChainError, TimeoutError) as error:
            said = error.message if isinstance(error, ChainError) else "it is not final yet"
            raise PaymentUndecided(
                f"the payment of {way.requirement.amount} rao was signed, and its fate is not known: {said}",
                remedy="Run this again later: it goes on with the same payment and does not pay twice",
            ) from error
        if not found.succeeded:
            raise PaymentLost(
                f"the payment failed in block {found.block.number}: nothing but a fee was charged",
                remedy="Look at the coldkey's balance, and run this again",
            )
        place = _Place(found.block.hash, found.index)
        claim = sign_claim(way.claim, way.offer_hash, place.bytes)
        payload = {"blockHash": place.block_hash.hex(), "extrinsicIndex": place.index, **claim.json()}
        return Shown(payload, f"extrinsic {found.index} of block {found.block.number}")

    async def fate(self, way: Way, signed: dict[str, Any], now: int) -> None:
        shown = await self.send(way, signed)
        raise PaymentUndecided(
            f"the money went to {way.requirement.payTo} in {shown.place}",
            remedy="Ask the seller; the payment is in the journal and is shown again on the next run",
        )

    async def _land(self, payment: SignedTransfer) -> Extrinsic:
        """The payment, once it is final.

        Raises:
            PaymentLost: it is not there and never can be.
            ChainError: the chain is away, or refuses it.
        """
        looked, sent, refusal, until = payment.start, False, None, 0
        while True:
            found, looked, never = await self._ledger.find(payment, looked)
            if found is not None:
                return found
            if never:
                raise PaymentLost("the payment did not land in its time, and never can: nothing was charged")
            if refusal is not None and looked >= until:
                raise ChainError(f"the chain does not take it: {refusal}")
            if not sent:
                sent, refusal = True, await self._ledger.submit(payment, self._key)
                until = await self._ledger.head()
            await anyio.sleep(max(0.02, self._ledger.block_time / 4))
