"""The buyer's order of paying: journal, sign, journal, send, journal, claim.

Killed at any instant, the next run goes on where this one was. What was signed is in the journal before it
leaves, and is sent again rather than signed anew: with one nonce, the same bytes can move money once. Another
payment begins only when the network says for certain that the first was not made and never can be.

    paid = await resume(...)          # first: is something unfinished?
    if paid is None:
        paid = await pay(choose(...), ...)
    ... show paid.header to the seller, save the token (0600, fsynced) ...
    journal.claimed(paid.reference, now)
    ... or, where the seller answers 402 to it:
    await refused(...)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ... import keyauth
from ...errors import TensorageError
from .. import wire
from .errors import PaymentLost, PaymentUndecided
from .journal import Journal, Row
from .models import X402_VERSION, Requirement, encode_header
from .policy import Chosen
from .reference import reference

__all__ = ["Paid", "Wallet", "Way", "pay", "refused", "resume"]


@dataclass(frozen=True, slots=True)
class Way:
    """What a wallet is to pay: the requirement, the claim key and what the payment carries on chain."""

    requirement: Requirement
    offer_hash: bytes
    expires: int
    claim: keyauth.SigningKey = field(repr=False)
    reference: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """What claims a token: the scheme's payload, and where the payment stands, for people."""

    payload: dict[str, Any] = field(repr=False)
    place: str
    extensions: dict[str, Any] | None = field(default=None, repr=False)


class Wallet(Protocol):
    """Money on one network."""

    @property
    def network(self) -> str:
        """The network's id."""

    @property
    def payer(self) -> str:
        """The address that pays."""

    async def sign(self, way: Way, now: int) -> dict[str, Any]:
        """Sign the payment, and send nothing: what `send` needs, as JSON.

        Raises:
            PolicyRefusal: it is not within what the wallet may do; nothing was signed.
            TensorageError: it cannot be made now; nothing was signed.
        """

    async def send(self, way: Way, signed: dict[str, Any]) -> Shown:
        """Bring a signed payment onto the chain, or find it there; called again after a crash, with the same.

        Raises:
            PaymentUndecided: whether it was made is not known yet.
            PaymentLost: it was not made, and never can be.
        """

    async def fate(self, way: Way, signed: dict[str, Any], now: int) -> None:
        """After the seller refused the payment: what became of it.

        Raises:
            PaymentUndecided: it was made, or may be yet.
            PaymentLost: it was not made, and never can be.
        """


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment that can be shown to the seller, and shown again: `header` is the PAYMENT-SIGNATURE
    header."""

    reference: bytes
    header: str = field(repr=False)
    network: str
    asset: str
    amount: int
    pay_to: str
    payer: str
    place: str


async def resume(
    wallet: Wallet, journal: Journal, *, root_owner: str, id: str, version: int, now: int
) -> Paid | None:
    """The unfinished payment for a version, brought to where it can be shown; None when a new one may begin.

    Raises:
        PaymentUndecided: it may have been made; nothing may be paid again yet.
    """
    row = journal.open(root_owner, id, version)
    if row is None:
        return None
    if row.state == "begun":  # nothing that was signed has left
        journal.lost(row.reference, now)
        return None
    if row.network != wallet.network or row.payer != wallet.payer:
        raise PaymentUndecided(
            f"{row.payer} has paid {row.amount} of {row.asset} on {row.network} for {id} version {version}, "
            "and the seller has not given the token yet",
            remedy="Run this again with that wallet",
        )
    if row.state == "paid" and row.header is not None:
        return _paid(row, row.header, row.place or "")
    return await _send(wallet, journal, row, now)


async def pay(
    chosen: Chosen,
    wallet: Wallet,
    journal: Journal,
    *,
    root_owner: str,
    now: int,
    rng: Callable[[int], bytes] = os.urandom,
) -> Paid:
    """Pay what was chosen. Call `resume` first.

    Raises:
        PolicyRefusal: nothing was signed.
        PaymentUndecided: another payment is open, or this one's fate is not known yet: run `resume` later.
        PaymentLost: it was not made; nothing was charged but perhaps a fee.
    """
    requirement, offer = chosen.requirement, chosen.signed.offer
    claim = keyauth.SigningKey(rng(keyauth.SEED_SIZE))
    row = Row(
        reference=reference(offer.hash, claim.public_key),
        root_owner=root_owner,
        id=offer.id,
        version=offer.version,
        network=requirement.network,
        asset=requirement.asset,
        amount=requirement.atomic,
        pay_to=requirement.payTo,
        payer=wallet.payer,
        accepted=requirement.model_dump(),
        seed=claim.seed,
        state="begun",
        signed=None,
        header=None,
        place=None,
        created=now,
        updated=now,
    )
    if row.network != wallet.network:
        raise ValueError(f"a wallet on {wallet.network} does not pay on {row.network}")
    journal.begin(row)
    try:
        signed = await wallet.sign(_way(row), now)
    except TensorageError:
        journal.lost(row.reference, now)
        raise
    journal.signed(row.reference, signed, now)
    recorded = journal.get(row.reference)
    assert recorded is not None, "it was just written"
    return await _send(wallet, journal, recorded, now)


async def refused(wallet: Wallet, journal: Journal, paid: Paid, now: int, why: str) -> None:
    """Find out what became of a payment that the seller has refused. Returns when a new one may begin.

    Args:
        why: the seller's reason, for the error.

    Raises:
        PaymentUndecided: the money went, or may go yet: nothing is paid again.
    """
    row = journal.get(paid.reference)
    if row is None or row.signed is None:
        return
    try:
        await wallet.fate(_way(row), row.signed, now)
    except PaymentLost:
        journal.lost(row.reference, now)
    except PaymentUndecided as error:
        raise PaymentUndecided(
            f"the seller refuses the payment ({why}): {error.message}", remedy=error.remedy
        ) from error


async def _send(wallet: Wallet, journal: Journal, row: Row, now: int) -> Paid:
    assert row.signed is not None, "only what was signed is sent"
    try:
        shown = await wallet.send(_way(row), row.signed)
    except PaymentLost:
        journal.lost(row.reference, now)
        raise
    header = encode_header(
        {
            "x402Version": X402_VERSION,
            "accepted": row.accepted,
            "payload": shown.payload,
            **({"extensions": shown.extensions} if shown.extensions else {}),
        }
    )
    journal.paid(row.reference, header, shown.place, now)
    return _paid(row, header, shown.place)


def _way(row: Row) -> Way:
    requirement = Requirement.model_validate(json.loads(json.dumps(row.accepted)))
    offer = wire.read_offer(row.accepted["extra"]["offer"]).offer
    return Way(requirement, offer.hash, offer.expires, keyauth.SigningKey(row.seed), row.reference)


def _paid(row: Row, header: str, place: str) -> Paid:
    return Paid(row.reference, header, row.network, row.asset, row.amount, row.pay_to, row.payer, place)
