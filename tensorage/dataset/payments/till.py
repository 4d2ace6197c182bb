"""What a network must do for a seller: say what it wants, recognise a payment, and bring it home."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from ..entry import Offer
from .models import Payment


@dataclass(frozen=True, slots=True)
class Terms:
    """The signed offer that a payment is for; `until` when (unix seconds) its owner's key makes offers."""

    offer: Offer
    until: int


@dataclass(frozen=True, slots=True)
class Presented:
    """A payment whose form and claim are good; its network was not asked yet.

    Attributes:
        payment_id: of its place on its chain, and of nothing else.
        place: as in `reference`.
        reference: what the payment must carry on chain.
        payer: where the payment itself says so.
        detail: whatever the till reads there for itself.
    """

    payment_id: bytes
    place: bytes
    reference: bytes
    payer: str | None
    detail: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settled:
    """Money that has arrived. `amount` is in the smallest unit; `transaction` names it to a person."""

    payment_id: bytes
    payer: str
    network: str
    amount: int
    transaction: str


class Till(Protocol):
    """One network, one asset.

    Every method but `extra` and `identify` asks the network, and may raise TillAway.
    """

    @property
    def network(self) -> str:
        """The network's id, as in an offer."""

    @property
    def asset(self) -> str:
        """The asset, as in an offer."""

    @property
    def max_timeout(self) -> int:
        """Seconds that a payment may take, as a challenge says it."""

    def extra(self) -> dict[str, Any]:
        """What a payer must know besides, for the `extra` of a requirement."""

    def identify(self, payment: Payment, terms: Terms) -> Presented:
        """The payment's place, and that who shows it may claim it.

        Raises:
            PaymentRefused: bad_payload, bad_claim.
        """

    async def check(self, shown: Presented, terms: Terms, now: int, *, begun: bool) -> Settled | None:
        """Look at a payment without moving money: Settled if it has arrived already, None if `settle` may
        be called.

        Args:
            begun: whether it was journaled before, so that an earlier `settle` may have moved the money.

        Raises:
            PaymentRefused: it is not good; `final` if it never can be made any more.
        """

    async def settle(self, shown: Presented, terms: Terms, *, begun: bool) -> Settled:
        """Move the money. The payment has been journaled, and its fate may be unknown after a failure.

        Args:
            begun: as in `check`.

        Raises:
            PaymentRefused: it was not made, and never can be (`final`).
            TillAway: this attempt or an earlier one may have moved the money, or may move it yet.
        """
