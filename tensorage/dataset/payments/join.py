"""The order of a paid join, for the seller's server.

    no payment      402 with the challenge
    malformed       400
    not for an offer of this owner, or not good: 402 with the reason and the challenge
    known, minted   200 with the token that was made for it
    else            check -> journal -> settle -> mint and record, in one transaction -> 200

The journal stands before the settlement, and the token before the answer: whatever dies in between, the
same payment shown again goes on where it was. A row leaves the journal only when the network itself shows
that the payment was not made and never can be. Payments are known by their place on their chain, so one pays
once. An offer counts until it expires, also after another one was made; so does one by a key that was
rotated away, for payments made before that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
from anyio.to_thread import run_sync

from ...errors import RequestError
from .. import identity, wire
from ..entry import Entry, Offer, SignedHead, SignedOffer
from ..errors import LogError
from ..sales import Payment as Row
from .errors import MalformedPayment, PaymentRefused, TillAway
from .models import (
    CHALLENGE_HEADER,
    RECEIPT_HEADERS,
    SCHEME,
    X402_VERSION,
    Requirement,
    encode_header,
    read_payment,
)
from .till import Presented, Settled, Terms, Till

__all__ = ["OFFER_SECONDS", "JoinAnswer", "PaidStore", "challenge", "join_paid", "requirement"]

#: How long an offer is good for, when whoever makes one has no reason for another time.
OFFER_SECONDS = 86_400

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """What to answer: status, JSON body, headers."""

    status: int
    body: dict[str, Any] = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)


class PaidStore(Protocol):
    """What a join needs of the store. Methods block for a short time and may be called from any thread."""

    def payment(self, payment_id: bytes, /) -> Row | None: ...

    def begin_payment(
        self,
        payment_id: bytes,
        id: str,
        version: int,
        /,
        *,
        network: str,
        asset: str,
        amount: int,
        pay_to: str,
        payer: str | None = None,
        reference: bytes | None = None,
    ) -> Row: ...

    def drop_payment(self, payment_id: bytes, /) -> None: ...

    def mint_paid(
        self,
        payment_id: bytes,
        id: str,
        version: int,
        payer: str | None,
        network: str,
        amount: int,
        transaction: str | None,
        /,
    ) -> str: ...


def requirement(till: Till, signed: SignedOffer, entry: Entry) -> dict[str, Any]:
    """One entry of `accepts`: the offer, with its owner's signature, and which bytes it is for."""
    offer = signed.offer
    return {
        "scheme": SCHEME,
        "network": offer.network,
        "amount": str(offer.amount),
        "asset": offer.asset,
        "payTo": offer.pay_to,
        "maxTimeoutSeconds": till.max_timeout,
        "extra": {
            **till.extra(),
            "dataset": {
                "manifestHash": entry.manifest_hash.hex(),
                "version": str(entry.seq),
                "fileHash": entry.file_hash.hex(),
                "sizeBytes": entry.size,
            },
            "offer": wire.offer_json(signed),
        },
    }


def challenge(
    till: Till,
    signed: SignedOffer,
    entry: Entry,
    *,
    head: SignedHead | None = None,
    url: str = "",
    error: str = "payment_required",
    message: str = "Pay as one of `accepts` says, and ask again with the payment",
) -> JoinAnswer:
    """The 402 that asks for payment."""
    body: dict[str, Any] = {
        "x402Version": X402_VERSION,
        "error": error,
        "message": message[:1024],
        "resource": {
            "url": url,
            "description": f"Version {entry.seq} of the dataset {entry.id}, for good",
            "mimeType": "application/json",
        },
        "accepts": [requirement(till, signed, entry)],
    }
    if head is not None:
        body["extensions"] = {"head": wire.head_json(head)}
    return JoinAnswer(402, body, {CHALLENGE_HEADER: encode_header(body)})


async def join_paid(
    store: PaidStore,
    till: Till,
    offer: SignedOffer,
    header: str | None,
    id: str,
    version: int,
    now: int,
    *,
    entry: Entry,
    head: SignedHead | None = None,
    url: str = "",
    owners: Mapping[str, int] | None = None,
) -> JoinAnswer:
    """Answer a request to join by paying.

    Args:
        offer: what is asked for this version now.
        header: the payment header's value, None when there is none.
        now: unix seconds.
        entry: the signed version that is sold.
        head: the newest head statement, for the challenge.
        url: of this join, for the challenge.
        owners: keys whose offers count, each with the last unix second at which a payment for them could be
            made; by default the offer's owner, without an end.

    Raises:
        StorageError: the store failed; nothing was lost, the same payment may be shown again.
    """
    if (offer.offer.id, offer.offer.version) != (id, version) or (entry.id, entry.seq) != (id, version):
        raise ValueError(f"offer and entry are not of {id} version {version}")
    if header is None:
        return challenge(till, offer, entry, head=head, url=url)
    try:
        payment = read_payment(header)
        terms = _terms(payment.accepted, till, offer, owners)
        shown = till.identify(payment, terms)
        async with _alone(shown.payment_id):
            return await _go(store, till, terms, shown, now)
    except MalformedPayment as error:
        return JoinAnswer(400, {"error": "malformed_payment", "message": error.message})
    except PaymentRefused as error:
        return challenge(till, offer, entry, head=head, url=url, error=error.reason, message=error.message)
    except TillAway as error:
        log.warning(
            "payment undecided id=%s version=%d reason=%s error=%r", id, version, error.reason, str(error)
        )
        body = {
            "error": error.reason,
            "message": f"{error}. Ask again with the same payment; do not pay twice",
        }
        return JoinAnswer(503, body, {"Retry-After": str(error.retry_after)})


async def _go(store: PaidStore, till: Till, terms: Terms, shown: Presented, now: int) -> JoinAnswer:
    offer = terms.offer
    known = await run_sync(store.payment, shown.payment_id)
    if known is not None:
        _same(known, shown, offer)
    if known is not None and known.state == "minted":
        settled = Settled(
            shown.payment_id, known.payer or "", known.network, known.amount, known.transaction or ""
        )
        return _answer(await _mint(store, offer, settled), offer.version, settled)
    try:
        arrived = await till.check(shown, terms, now, begun=known is not None)
    except PaymentRefused as error:
        if error.final and known is not None:
            await run_sync(store.drop_payment, shown.payment_id)
        raise
    with anyio.CancelScope(shield=True):  # from here on, what was begun is brought to a recorded end
        try:
            row = await run_sync(
                lambda: store.begin_payment(
                    shown.payment_id,
                    offer.id,
                    offer.version,
                    network=offer.network,
                    asset=offer.asset,
                    amount=offer.amount,
                    pay_to=offer.pay_to,
                    payer=shown.payer,
                    reference=shown.reference,
                )
            )
        except RequestError as error:
            raise PaymentRefused("payment_spent", error.message) from error
        _same(row, shown, offer)
        try:
            settled = arrived or await till.settle(shown, terms, begun=known is not None)
        except PaymentRefused as error:
            if error.final:  # and else the money may still come
                await run_sync(store.drop_payment, shown.payment_id)
            raise
        token = await _mint(store, offer, settled)
    return _answer(token, offer.version, settled)


def _same(known: Row, shown: Presented, offer: Offer) -> None:
    """Check that a payment is shown for what it was made for, by who claimed it first.

    Who shows one has signed the claim with a key of his own; that the key is the payment's is what the chain
    has shown for the reference in the journal, and for no other.

    Raises:
        PaymentRefused: payment_spent.
    """
    if (known.id, known.version) != (offer.id, offer.version):
        raise PaymentRefused(
            "payment_spent", f"this payment has bought version {known.version} of {known.id}, and buys once"
        )
    if known.reference != shown.reference:
        raise PaymentRefused("payment_spent", "this payment has bought this version with another claim key")


async def _mint(store: PaidStore, offer: Offer, settled: Settled) -> str:
    token = await run_sync(
        lambda: store.mint_paid(
            settled.payment_id,
            offer.id,
            offer.version,
            settled.payer or None,
            settled.network,
            settled.amount,
            settled.transaction or None,
        )
    )
    log.info(
        "paid id=%s version=%d network=%s amount=%d payment=%s",
        offer.id,
        offer.version,
        settled.network,
        settled.amount,
        settled.payment_id.hex(),
    )
    return token


def _answer(token: str, version: int, settled: Settled) -> JoinAnswer:
    receipt = {
        "success": True,
        "transaction": settled.transaction,
        "network": settled.network,
        "payer": settled.payer,
        "amount": str(settled.amount),
    }
    headers = dict.fromkeys(RECEIPT_HEADERS, encode_header(receipt))
    return JoinAnswer(200, {"token": token, "version": version}, headers)


def _terms(
    accepted: Requirement, till: Till, current: SignedOffer, owners: Mapping[str, int] | None
) -> Terms:
    """The offer that a payment is for: the current one, or another that the owner signed for this version.

    Raises:
        PaymentRefused: other_offer.
    """
    try:
        signed = wire.read_offer(accepted.extra.get("offer") or {})
    except LogError as error:
        raise PaymentRefused(
            "other_offer", f"`accepted` does not carry the signed offer: {error.message}"
        ) from error
    offer = signed.offer
    until = ({current.offer.owner: 2**53} if owners is None else owners).get(offer.owner)
    if until is None or (offer.id, offer.version) != (current.offer.id, current.offer.version):
        raise PaymentRefused(
            "other_offer", "the payment is for another owner's offer, another dataset or version"
        )
    if offer != current.offer and not identity.verify(offer.owner, offer.hash, signed.signature):
        raise PaymentRefused("other_offer", "the offer in `accepted` is not signed by its owner")
    wanted = (SCHEME, offer.network, str(offer.amount), offer.asset, offer.pay_to)
    if wanted != (accepted.scheme, accepted.network, accepted.amount, accepted.asset, accepted.payTo):
        raise PaymentRefused("other_offer", "scheme, network, amount, asset or payTo is not as offered")
    if (offer.network, offer.asset) != (till.network, till.asset):
        raise PaymentRefused("other_offer", f"{offer.asset} on {offer.network} is not taken here any more")
    return Terms(offer, until)


_under_way: dict[bytes, tuple[asyncio.Lock, list[None]]] = {}


@asynccontextmanager
async def _alone(payment_id: bytes) -> AsyncIterator[None]:
    """One request at a time for one payment, in this process; the store keeps processes apart."""
    lock, waiting = _under_way.setdefault(payment_id, (asyncio.Lock(), []))
    waiting.append(None)
    try:
        async with lock:
            yield
    finally:
        waiting.pop()
        if not waiting:
            _under_way.pop(payment_id, None)
