"""Being paid on an EVM chain: EIP-3009 through a facilitator, in the scheme "exact" of x402.

The buyer's authorization has the reference (see `reference`) as its nonce, so it pays for one offer and
can be claimed by one key, though all of it is public once it is on chain. The claim stands in the
payment's `extensions` and is not shown to the facilitator.

Settling is the facilitator's, and its word that it has settled is taken. Its word that it has not is not: its
transaction may land after it gave up. Nor is "nonce already used" a proof of payment, because whoever owns
an authorization can cancel it or use up its nonce otherwise. So once a settlement was asked for, only the
chain (`evm_proof`) says that none was made: the authorization is void, or unused after its end. Until then,
and without an RPC URL for good, the payment stays undecided, 503. Nobody is told to pay again meanwhile.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import anyio
import httpx

from ...encoding import fixed
from .. import identity
from .errors import PaymentRefused, TillAway
from .evm_extra import ADDRESS, Token, chain_id, check_url, eip712, missing, usdc
from .evm_proof import Authorization, Chain
from .models import X402_VERSION, Payment
from .policy import TRANSFER_METHODS
from .reference import Claim, payment_id
from .till import Presented, Settled, Terms

MAX_TIMEOUT = 900
VERIFY_SECONDS = 10.0
SETTLE_SECONDS = 60.0
#: An authorization must be good for so much longer, and for no longer than so much in all.
LEAST_LEFT = 10
MOST_WINDOW = 2 * 86_400
CLAIM = "claim"
#: What chains are called besides their CAIP-2 ids.
NAMES = {"base": "eip155:8453", "base-sepolia": "eip155:84532", "ethereum": "eip155:1"}

_FIELDS = {"from", "to", "value", "validAfter", "validBefore", "nonce"}
_SECONDS = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_NONCE = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
_SIGNATURE = re.compile(r"0x[0-9a-f]{130}", re.ASCII)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Shown:
    """An authorization whose form, amount, payee and signature are good."""

    payload: dict[str, Any]
    payer: str
    nonce: bytes
    valid_after: int
    valid_before: int


class EvmTill:
    """The seller's side. An asynchronous context manager.

    Args:
        network: CAIP-2 id, such as eip155:8453.
        token: what is taken.
        facilitator: URL of who settles.
        rpc: URL of a node of the chain, to ask whether an undecided payment arrived; None: nobody is asked.

    Raises:
        UsageError: the extra `evm` is not installed, or a URL or the network is wrong.
    """

    max_timeout = MAX_TIMEOUT

    def __init__(self, network: str, token: Token, facilitator: str, *, rpc: str | None = None) -> None:
        try:
            import x402.http as x402_http  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise missing(error) from error
        self.network = network
        self.asset = token.address
        self._token = token
        self._chain_id = chain_id(network)
        self._eip712 = eip712()
        self._http = httpx.AsyncClient(timeout=SETTLE_SECONDS, follow_redirects=False)
        self._facilitator = x402_http.HTTPFacilitatorClient(
            x402_http.FacilitatorConfig(
                url=check_url(facilitator, "facilitator"), timeout=SETTLE_SECONDS, http_client=self._http
            )
        )
        self._chain = None if rpc is None else Chain(check_url(rpc, "EVM node"), self._http)

    async def __aenter__(self) -> EvmTill:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    def extra(self) -> dict[str, Any]:
        return {
            "name": self._token.name,
            "version": self._token.version,
            "assetTransferMethod": TRANSFER_METHODS["eip155"],
        }

    def identify(self, payment: Payment, terms: Terms) -> Presented:
        shown = self._read(payment, terms)
        place = bytes.fromhex(self.asset[2:]) + bytes.fromhex(shown.payer[2:]) + shown.nonce
        stated = (payment.extensions or {}).get(CLAIM)
        if not isinstance(stated, dict) or set(stated) != {"claimKey", "signature"}:
            raise PaymentRefused(
                "bad_claim",
                f"extensions.{CLAIM} must have claimKey and signature, so that a lost answer can be "
                "asked for again by nobody but the payer",
            )
        reference = Claim.read(stated["claimKey"], stated["signature"]).check(terms.offer.hash, place)
        if reference != shown.nonce:
            raise PaymentRefused(
                "bad_claim", "the authorization's nonce is not the reference of offer and claim key"
            )
        return Presented(payment_id(self.network, place), place, reference, shown.payer, shown)

    async def check(self, shown: Presented, terms: Terms, now: int, *, begun: bool) -> Settled | None:
        detail: _Shown = shown.detail
        late = _late(detail, terms, now)
        if begun or late is not None:  # the money may have moved: in an earlier settlement, or before the end
            arrived = await self._proved(shown, terms, begun=begun)
            if arrived is not None or begun:
                return arrived
        if late is not None:
            raise late
        payload, requirement = self._for_facilitator(detail, terms)
        try:
            with anyio.fail_after(VERIFY_SECONDS):
                verdict = await self._facilitator.verify(payload, requirement)
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            raise TillAway(
                f"the facilitator cannot be asked whether the payment is good: {_line(error)}"
            ) from error
        if verdict.is_valid:
            return None
        reason = _line(verdict.invalid_reason or "no reason given")
        if arrived := await self._proved(shown, terms, begun=begun):
            return arrived
        if self._chain is None and _says_used(reason):
            raise _unproved(reason)
        raise PaymentRefused("verify_failed", f"the facilitator finds the payment not good: {reason}")

    async def settle(self, shown: Presented, terms: Terms, *, begun: bool) -> Settled:
        detail: _Shown = shown.detail
        payload, requirement = self._for_facilitator(detail, terms)
        try:
            with anyio.fail_after(SETTLE_SECONDS + 5):
                answer = await self._facilitator.settle(payload, requirement)
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            raise TillAway(f"the facilitator did not say whether it settled: {_line(error)}") from error
        if answer.success:
            return self._settled(shown, terms, _line(answer.transaction))
        reason = _line(answer.error_reason or "no reason given")
        log.warning("settlement refused payment=%s reason=%r begun=%s", shown.payment_id.hex(), reason, begun)
        if arrived := await self._proved(shown, terms, begun=True):
            return arrived
        if reason == "settlement_pending":
            raise TillAway("the settlement is under way", reason="payment_not_final", retry_after=10)
        if self._chain is None:
            raise _unproved(reason)
        raise TillAway(
            f"the facilitator says that it did not settle ({reason}), and the chain shows no payment yet; "
            f"one may still come until {detail.valid_before}",
            reason="payment_unproved",
            retry_after=30,
        )

    async def _proved(self, shown: Presented, terms: Terms, *, begun: bool) -> Settled | None:
        """The payment, if the chain itself shows it; None if it does not, or there is no node to ask.

        Raises:
            PaymentRefused: it never can be made any more (`final`); or it was made when the offer had ended,
                and was not begun before.
            TillAway: it is not final yet, or the node is away.
        """
        if self._chain is None:
            return None
        detail: _Shown = shown.detail
        found = await self._chain.look(
            Authorization(
                self._chain_id,
                self.asset,
                detail.payer,
                terms.offer.pay_to,
                terms.offer.amount,
                detail.nonce,
                detail.valid_after,
            )
        )
        if found.state == "paid":
            if not begun and found.time > (end := _end(terms)):
                raise PaymentRefused(
                    "too_late", f"{found.transaction} is of {found.time}, the offer ended at {end}"
                )
            return self._settled(shown, terms, found.transaction)
        if found.state == "not_final":
            raise TillAway(f"{found.transaction} is not final", reason="payment_not_final", retry_after=10)
        if found.state == "void":
            raise PaymentRefused(
                "not_paid",
                f"the authorization was cancelled or used otherwise in {found.transaction}",
                final=True,
            )
        if found.time > detail.valid_before:
            raise PaymentRefused(
                "too_late",
                f"the authorization ended at {detail.valid_before}, and was not used: nothing was charged",
                final=True,
            )
        return None

    def _settled(self, shown: Presented, terms: Terms, transaction: str) -> Settled:
        detail: _Shown = shown.detail
        return Settled(shown.payment_id, detail.payer, self.network, terms.offer.amount, transaction)

    def _read(self, payment: Payment, terms: Terms) -> _Shown:
        """The authorization in a payment.

        Raises:
            PaymentRefused: bad_payload, wrong_payee, too_little.
        """
        authorization, signature = payment.payload.get("authorization"), payment.payload.get("signature")
        if (
            set(payment.payload) != {"authorization", "signature"}
            or not isinstance(authorization, dict)
            or set(authorization) != _FIELDS
            or not isinstance(signature, str)
            or not all(isinstance(value, str) for value in authorization.values())
        ):
            raise PaymentRefused(
                "bad_payload",
                f"the payload has a signature and an authorization of {', '.join(sorted(_FIELDS))}",
            )
        offer = terms.offer
        payer, payee = authorization["from"], authorization["to"]
        if not ADDRESS.fullmatch(payer) or not ADDRESS.fullmatch(payee):
            raise PaymentRefused("bad_payload", "from and to are 0x and 40 hex digits")
        if payee.lower() != offer.pay_to.lower():
            raise PaymentRefused(
                "wrong_payee", f"the authorization pays {payee}, the offer wants {offer.pay_to}"
            )
        if authorization["value"] != str(offer.amount):
            raise PaymentRefused("too_little", f"the authorization is not of exactly {offer.amount}")
        window = authorization["validAfter"], authorization["validBefore"]
        if not all(_SECONDS.fullmatch(value) for value in window):
            raise PaymentRefused("bad_payload", "validAfter and validBefore are decimal unix seconds")
        after, before = map(int, window)
        if not 0 < before - after <= MOST_WINDOW:
            raise PaymentRefused(
                "bad_payload", f"the authorization must be good for at most {MOST_WINDOW} seconds"
            )
        if not _NONCE.fullmatch(authorization["nonce"]) or not _SIGNATURE.fullmatch(signature):
            raise PaymentRefused(
                "bad_payload", "nonce and signature are 0x and 64 and 130 lower-case hex digits"
            )
        if not self._signed(authorization, bytes.fromhex(signature[2:])):
            raise PaymentRefused(
                "bad_payload", "the authorization is not signed by its payer, as the token demands"
            )
        return _Shown(
            payment.payload, payer.lower(), bytes.fromhex(authorization["nonce"][2:]), after, before
        )

    def _signed(self, authorization: dict[str, str], signature: bytes) -> bool:
        """Whether the payer's own key signed, with V 27 or 28 as the token's contract wants it."""
        from x402.mechanisms.evm.types import ExactEIP3009Authorization  # noqa: PLC0415 - an extra

        if signature[64] not in (27, 28):
            return False
        digest = self._eip712.hash_eip3009_authorization(
            ExactEIP3009Authorization(
                authorization["from"],
                authorization["to"],
                authorization["value"],
                authorization["validAfter"],
                authorization["validBefore"],
                authorization["nonce"],
            ),
            self._chain_id,
            self.asset,
            self._token.name,
            self._token.version,
        )
        plain = fixed(signature, 65, "signature")[:64] + bytes([signature[64] - 27])
        return identity.recover(bytes(digest), plain) == authorization["from"].lower()

    def _for_facilitator(self, detail: _Shown, terms: Terms) -> tuple[Any, Any]:
        """What the facilitator is sent: the package's own types, without claim, offer or anything from
        outside."""
        from x402.schemas import PaymentPayload, PaymentRequirements  # noqa: PLC0415 - an extra

        offer = terms.offer
        requirement = PaymentRequirements(
            scheme="exact",
            network=offer.network,
            asset=offer.asset,
            amount=str(offer.amount),
            pay_to=offer.pay_to,
            max_timeout_seconds=MAX_TIMEOUT,
            extra=self.extra(),
        )
        payload = PaymentPayload(
            x402_version=X402_VERSION, payload=json.loads(json.dumps(detail.payload)), accepted=requirement
        )
        return payload, requirement


def _end(terms: Terms) -> int:
    """The last unix second at which money may move for an offer."""
    return min(terms.offer.expires, terms.until)


def _late(detail: _Shown, terms: Terms, now: int) -> PaymentRefused | None:
    """Why it is not the time to settle an authorization."""
    if now > (end := _end(terms)):
        return PaymentRefused("offer_expired", f"the offer ended at {end}, it is {now}")
    if not detail.valid_after <= now or detail.valid_before < now + LEAST_LEFT:
        window = f"from {detail.valid_after} to {detail.valid_before}"
        return PaymentRefused("too_late", f"the authorization is good {window}, it is {now}")
    return None


def _says_used(reason: str) -> bool:
    """Whether a facilitator says that the authorization's nonce is used."""
    words = reason.lower()
    return "nonce" in words or "used" in words or "replay" in words


def _unproved(reason: str) -> TillAway:
    return TillAway(
        f"the facilitator says {reason!r}, which proves neither that the payment arrived nor that it did not",
        reason="payment_unproved",
        retry_after=60,
        remedy="The seller can find out with --rpc",
    )


def _line(value: object) -> str:
    """One printable line of what somebody else said."""
    text = " ".join(str(value).split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in text) or type(value).__name__


def open_till(chain: str, facilitator: str | None = None, *, rpc: str | None = None) -> EvmTill:
    """The till for USDC on a chain that is called by its name or CAIP-2 id.

    Args:
        facilitator: URL of who settles; None for the x402 package's own default.

    Raises:
        UsageError: as `EvmTill`, or there is no USDC known on that chain.
    """
    network = NAMES.get(chain, chain)
    token = usdc(network)
    if facilitator is None:
        from x402.http import DEFAULT_FACILITATOR_URL  # noqa: PLC0415 - an extra

        facilitator = DEFAULT_FACILITATOR_URL
    return EvmTill(network, token, facilitator, rpc=rpc)
