"""What can be wrong with a payment, in words that machines may rely on."""

from __future__ import annotations

from ...errors import TensorageError, UsageError


class MalformedPayment(TensorageError):
    """A payment or a challenge that cannot be read."""

    http_status = 400


class PaymentRefused(TensorageError):
    """The seller does not take a payment, and will not take it later either: HTTP 402.

    Attributes:
        reason: one stable word: other_offer, offer_expired, bad_claim, bad_payload, not_paid, too_little,
            failed, wrong_payee, too_late, payment_spent, verify_failed.
        final: whether the network itself shows that the payment was not made and never can be.
    """

    http_status = 402

    def __init__(self, reason: str, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.final = final


class TillAway(TensorageError):
    """Whether a payment is good cannot be said now: HTTP 503; the same payment may be shown again later.

    Attributes:
        reason: till_away, payment_not_final or payment_unproved.
        retry_after: seconds until asking again makes sense.
    """

    http_status = 503

    def __init__(
        self, message: str, *, reason: str = "till_away", retry_after: int = 5, remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason
        self.retry_after = retry_after


class PolicyRefusal(UsageError):
    """The buyer does not sign what is asked of it; nothing was signed.

    Attributes:
        reason: one stable word: no_offer, over_limit, other_network, other_asset, other_payee, other_scheme,
            other_transfer, unsigned_offer, foreign_offer, offer_mismatch, other_dataset, offer_expired.
    """

    def __init__(self, reason: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class PaymentUndecided(TensorageError):
    """A payment was signed, and it is not known yet whether it was made. Nothing is paid again meanwhile."""


class PaymentLost(TensorageError):
    """A payment that was signed was not made, and never can be: paying anew charges nobody twice."""
