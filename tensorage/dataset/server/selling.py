"""Access against payment: the owner signs what a version costs, the till judges what is paid.

An offer is signed for each version that somebody asks for, and again when half its life is over. Offers by
a key that was rotated away count for payments made before that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio.to_thread

from ..entry import Entry, Offer, SignedHead, SignedOffer
from ..identity import Signer
from ..log import Log
from ..payments.join import OFFER_SECONDS, JoinAnswer, join_paid
from ..payments.pricing import amount_of
from ..payments.till import Till
from ..sales import OfferTerms
from ..store import Store

#: Headers in which a payment may come; the first that is there counts.
PAYMENT_HEADERS = ("payment-signature", "x-payment")
#: How long a payment may take to be judged and settled; who waits longer asks again with the same one.
JOIN_SECONDS = 180.0
#: Last unix second at which an offer by the owner's present key counts: none.
_ALWAYS = 2**53


class Sale:
    """Sells one dataset.

    Args:
        url: the public URL of the server at this moment.
        clock: unix seconds.
    """

    def __init__(
        self,
        store: Store,
        till: Till,
        terms: OfferTerms,
        signer: Signer,
        *,
        url: Callable[[], str],
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._till = till
        self._terms = terms
        self._signer = signer
        self._url = url
        self._clock = clock
        self._offers: dict[int, SignedOffer] = {}

    async def join(
        self, headers: Mapping[str, Sequence[str]], log: Log, entry: Entry, head: SignedHead
    ) -> JoinAnswer:
        """The answer to a request to join by paying for the version of `entry`.

        Raises:
            UsageError: the version has no price.
        """
        payment = next((headers[name][0] for name in PAYMENT_HEADERS if headers.get(name)), None)
        owners = {signed.rotation.old: signed.rotation.time for signed in log.rotations}
        owners[self._signer.owner] = owners.get(self._signer.owner, _ALWAYS)
        return await join_paid(
            self._store,
            self._till,
            await anyio.to_thread.run_sync(self._offer, entry),
            payment,
            entry.id,
            entry.seq,
            self._clock(),
            entry=entry,
            head=head,
            url=f"{self._url()}/dataset/{entry.id}/join/paid?version={entry.seq}",
            owners=owners,
        )

    def _offer(self, entry: Entry) -> SignedOffer:
        now = self._clock()
        known = self._offers.get(entry.seq)
        if known is None or not 0 <= known.offer.expires - OFFER_SECONDS // 2 - now <= OFFER_SECONDS // 2:
            offer = Offer(
                id=entry.id,
                owner=self._signer.owner,
                version=entry.seq,
                network=self._terms.network,
                asset=self._terms.asset,
                amount=amount_of(self._terms, entry.size),
                pay_to=self._terms.pay_to,
                expires=now + OFFER_SECONDS,
            )
            known = self._offers[entry.seq] = SignedOffer(offer, self._signer.sign(offer.hash))
        return known
