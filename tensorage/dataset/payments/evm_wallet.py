"""Paying on an EVM chain: an EIP-3009 authorization, signed with the x402 package.

Nothing is sent by the buyer: the authorization is shown to the seller, whose facilitator puts it on
chain. It is good until `validBefore` and can move money once, whoever shows it and however often. So
after a seller's refusal it may still be used until then; only a block after that time, deep enough not to be
replaced, in which its nonce is unused, says that it never was (`rpc`).
"""

from __future__ import annotations

from typing import Any

import httpx
from eth_utils.exceptions import ValidationError

from ...errors import UsageError
from .errors import PaymentLost, PaymentUndecided, PolicyRefusal, TillAway
from .evm import CLAIM, LEAST_LEFT
from .evm_extra import ADDRESS, chain_id, check_url, missing
from .evm_proof import Authorization, Chain
from .paying import Shown, Way
from .reference import sign_claim

#: Clocks differ: the authorization is good from this long ago.
BACKDATED = 300


class EvmWallet:
    """A secp256k1 key that holds a token.

    Args:
        secret: 32 bytes.
        rpc: URL of a node of the chain, to learn what became of a payment; None: nobody is asked.

    Raises:
        UsageError: the extra `evm` is not installed, the network or a URL is wrong, or the secret is no key.
    """

    def __init__(self, network: str, secret: bytes, *, rpc: str | None = None) -> None:
        try:
            from eth_account import Account  # noqa: PLC0415 - an extra
            from x402.mechanisms.evm.signers import EthAccountSigner  # noqa: PLC0415 - an extra, and slow
        except ImportError as error:
            raise missing(error) from error
        self._chain_id = chain_id(network)
        self.network = network
        try:
            account = Account.from_key(secret)
        except (ValueError, ValidationError):
            raise UsageError("the key is no secp256k1 key: 32 bytes, not 0, below the order") from None
        self._signer = EthAccountSigner(account)
        self.payer = self._signer.address.lower()
        self._rpc = None if rpc is None else check_url(rpc, "EVM node")

    async def sign(self, way: Way, now: int) -> dict[str, Any]:
        from x402.mechanisms.evm.eip712 import build_typed_data_for_signing  # noqa: PLC0415 - an extra
        from x402.mechanisms.evm.types import (  # noqa: PLC0415
            ExactEIP3009Authorization,
            ExactEIP3009Payload,
            TypedDataField,
        )

        wanted = way.requirement
        name, version = wanted.extra.get("name"), wanted.extra.get("version")
        if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
            raise PolicyRefusal(
                "other_asset", "the seller does not say the name and version under which the token signs"
            )
        if not ADDRESS.fullmatch(wanted.asset) or wanted.network != self.network:
            raise PolicyRefusal(
                "other_asset", f"{wanted.asset!r} on {wanted.network} is no token of {self.network}"
            )
        until = min(now + wanted.maxTimeoutSeconds, way.expires)
        if until < now + 2 * LEAST_LEFT:
            raise PolicyRefusal(
                "offer_expired", f"the payment would have to arrive within {until - now} seconds"
            )
        authorization = ExactEIP3009Authorization(
            from_address=self._signer.address,
            to=wanted.payTo,
            value=wanted.amount,
            valid_after=str(now - BACKDATED),
            valid_before=str(until),
            nonce=f"0x{way.reference.hex()}",
        )
        domain, types, primary, message = build_typed_data_for_signing(
            authorization, self._chain_id, wanted.asset, name, version
        )
        fields = {
            kind: [TypedDataField(name=one["name"], type=one["type"]) for one in members]
            for kind, members in types.items()
        }
        signature = self._signer.sign_typed_data(domain, fields, primary, message)
        payload = ExactEIP3009Payload(authorization, f"0x{signature.hex()}")
        return {"payload": payload.to_dict()}

    async def send(self, way: Way, signed: dict[str, Any]) -> Shown:
        payload: dict[str, Any] = signed["payload"]
        place = bytes.fromhex(way.requirement.asset[2:]) + bytes.fromhex(self.payer[2:]) + way.reference
        claim = sign_claim(way.claim, way.offer_hash, place)
        return Shown(payload, f"authorization 0x{way.reference.hex()}", {CLAIM: claim.json()})

    async def fate(self, way: Way, signed: dict[str, Any], now: int) -> None:
        authorization = signed["payload"]["authorization"]
        until = int(authorization["validBefore"])
        if now <= until:
            raise PaymentUndecided(
                f"the authorization is good for {until - now} more seconds, in which the seller may use it",
                remedy="Run this again after that",
            )
        if self._rpc is None:
            raise PaymentUndecided(
                "whether the seller has used the authorization is on the chain, and there is no node to ask",
                remedy="Name one with --rpc, and run this again",
            )
        async with httpx.AsyncClient(follow_redirects=False) as http:
            try:
                found = await Chain(self._rpc, http).look(
                    Authorization(
                        self._chain_id,
                        way.requirement.asset,
                        self.payer,
                        way.requirement.payTo,
                        way.requirement.atomic,
                        way.reference,
                        int(authorization["validAfter"]),
                    )
                )
            except TillAway as error:
                raise PaymentUndecided(error.message, remedy="Run this again later") from error
        if found.state == "unused" and found.time > until:
            raise PaymentLost("the authorization was not used in its time: nothing was charged")
        if found.state == "void":
            raise PaymentLost(f"the authorization was cancelled or used otherwise in {found.transaction}")
        if found.state == "not_final":
            raise PaymentUndecided(
                f"the authorization was used in {found.transaction}, which is not final yet",
                remedy="Run this again later",
            )
        raise PaymentUndecided(
            f"the money went to {way.requirement.payTo} in {found.transaction}"
            if found.transaction
            else "the chain has made no final block yet after the end of the authorization",
            remedy="Ask the seller; the payment is in the journal and is shown again on the next run",
        )
