"""What a buyer pays, and what it refuses before anything is signed.

A way to pay is taken only if its price, network, asset and payee are within the buyer's limits; if it
carries an offer that the owner of the verified log signed, for this dataset and version, with the very
amount, asset, payee and network that it asks for, and that is good for long enough; and if it names the
bytes of the entry that the buyer verified. So neither the seller's server nor a proxy before it can ask for
anything that the owner has not put its name to, and the owner for no more than the buyer allows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...chain.address import public_key
from .. import identity, wire
from ..entry import Entry, SignedOffer
from ..errors import LogError
from .errors import PolicyRefusal
from .models import SCHEME, Challenge, Requirement

__all__ = ["Chosen", "Limits", "choose"]

#: Seconds that an offer must be good for, so that it is still when the payment arrives.
MARGIN = 120
#: How money moves on each kind of network; anything else would be signed in another way.
TRANSFER_METHODS = {"bittensor": "tao-remark", "eip155": "eip3009"}
_EVM_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)

Verify = Callable[[str, bytes, bytes], bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a buyer allows.

    Attributes:
        max_price: in the smallest unit of the asset.
        networks, assets: those it pays on and in. Addresses of tokens are compared without their case.
        pay_to: the only payees that it pays; None for whomever the owner names.
    """

    max_price: int
    networks: frozenset[str]
    assets: frozenset[str]
    pay_to: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if type(self.max_price) is not int or self.max_price <= 0:
            raise ValueError(f"a highest price of {self.max_price!r:.40} allows nothing")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A way to pay that is within the limits, and the owner's offer in it."""

    requirement: Requirement = field(repr=False)
    signed: SignedOffer


def choose(
    challenge: Challenge,
    limits: Limits,
    *,
    entry: Entry,
    owner: str,
    now: int,
    margin: int = MARGIN,
    verify: Verify = identity.verify,
) -> Chosen:
    """The first way to pay that may be taken.

    Args:
        entry: the version to buy, from a verified log.
        owner: the newest key of that log.
        now: unix seconds.

    Raises:
        PolicyRefusal: there is none; the reason is that of the way that came closest.
    """
    refusals: list[tuple[int, PolicyRefusal]] = []
    for way in challenge.accepts:
        passed = 0
        try:
            _scheme(way, limits)
            passed += 1
            signed = _offer(way, entry, owner, verify)
            passed += 1
            _dataset(way, entry)
            _time(signed, now + margin)
            passed += 1
            _money(way, limits)
        except PolicyRefusal as refusal:
            refusals.append((passed, refusal))
        else:
            return Chosen(way, signed)
    raise max(refusals, key=lambda pair: pair[0])[1]


def _scheme(way: Requirement, limits: Limits) -> None:
    if way.scheme != SCHEME:
        raise PolicyRefusal("other_scheme", f"the seller asks for scheme {way.scheme!r}, not {SCHEME!r}")
    if way.network not in limits.networks:
        raise PolicyRefusal(
            "other_network",
            f"the seller wants to be paid on {way.network}, not on {', '.join(sorted(limits.networks))}",
            remedy="Name that network, if you have a wallet for it",
        )
    known = TRANSFER_METHODS.get(way.network.partition(":")[0])
    if known is None or way.extra.get("assetTransferMethod", known) != known:
        method = way.extra.get("assetTransferMethod")
        raise PolicyRefusal(
            "other_transfer", f"the seller asks for transfer method {method!r:.40}, not {known!r}"
        )


def _offer(way: Requirement, entry: Entry, owner: str, verify: Verify) -> SignedOffer:
    document = way.extra.get("offer")
    if not isinstance(document, dict):
        raise PolicyRefusal("unsigned_offer", "the seller's price is not signed by the owner")
    try:
        signed = wire.read_offer(document)
    except LogError as error:
        raise PolicyRefusal("unsigned_offer", f"the offer does not read: {error.message}") from error
    offer = signed.offer
    if offer.owner != owner:
        raise PolicyRefusal("foreign_offer", f"the offer is by {offer.owner}, the dataset is {owner}'s")
    if not verify(owner, offer.hash, signed.signature):
        raise PolicyRefusal("unsigned_offer", "the signature under the offer is not the owner's")
    if (offer.id, offer.version) != (entry.id, entry.seq):
        raise PolicyRefusal(
            "foreign_offer",
            f"the offer is for {offer.id} version {offer.version}, not {entry.id} version {entry.seq}",
        )
    asked = (way.network, way.amount, way.asset, way.payTo)
    if asked != (offer.network, str(offer.amount), offer.asset, offer.pay_to):
        raise PolicyRefusal(
            "offer_mismatch", "price, asset, payee or network asked for is not the one in the owner's offer"
        )
    return signed


def _dataset(way: Requirement, entry: Entry) -> None:
    stated: Any = way.extra.get("dataset")
    wanted = {
        "manifestHash": entry.manifest_hash.hex(),
        "version": str(entry.seq),
        "fileHash": entry.file_hash.hex(),
        "sizeBytes": entry.size,
    }
    if not isinstance(stated, dict) or stated != wanted or type(stated["sizeBytes"]) is not int:
        raise PolicyRefusal("other_dataset", "the price is not for the file that the owner signed")


def _time(signed: SignedOffer, until: int) -> None:
    if signed.offer.expires < until:
        raise PolicyRefusal(
            "offer_expired", "the owner's offer has ended, or ends before a payment can arrive"
        )


def _money(way: Requirement, limits: Limits) -> None:
    if _address(way.asset) not in {_address(asset) for asset in limits.assets}:
        raise PolicyRefusal(
            "other_asset", f"the seller wants {way.asset}, not {', '.join(sorted(limits.assets))}"
        )
    if limits.pay_to is not None and _address(way.payTo) not in {_address(to) for to in limits.pay_to}:
        raise PolicyRefusal("other_payee", f"the money would go to {way.payTo}, whom you did not allow")
    if not _payable(way):
        raise PolicyRefusal("other_payee", f"{way.payTo[:80]!r} is no address on {way.network}")
    if way.atomic > limits.max_price:
        raise PolicyRefusal(
            "over_limit",
            f"the price is {way.amount}, more than the {limits.max_price} that you allow (smallest units)",
            remedy="Raise --max-price, if it is worth that",
        )


def _payable(way: Requirement) -> bool:
    if not way.network.startswith("bittensor:"):
        return _EVM_ADDRESS.fullmatch(way.payTo) is not None and int(way.payTo, 16) != 0
    try:
        return any(public_key(way.payTo))
    except ValueError:
        return False


def _address(text: str) -> str:
    return text.lower() if text.startswith("0x") else text
