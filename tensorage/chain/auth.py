"""Signatures: of protocol records, and of HTTP requests (btauth/1).

Rules. Keys are sr25519 and nothing else. A request is bound to its receiver, and accepted once: the nonce
store is written only after the signature has passed. What a peer sent wrongly is always a RequestError of
kind "unauthenticated" with one line that is safe to return; anything else that goes wrong (a database that
cannot be written, a store that forgets too early) is ours and keeps its own type, so that it is never
blamed on the peer.

The scheme is the SDK's `bittensor.http_auth`; its guide "signed requests" is the standard, and its golden
vectors are our tests. Releases after 11.3.0 let the verifier say which type of key it expects, and demand
that it does; `_verify_sr25519` says it where it can be said and checks the header itself where not.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bittensor import CRYPTO_SR25519, http_auth, sp_core

from ..encoding import SIGNATURE_SIZE
from ..errors import RequestError
from .address import public_key, ss58

if TYPE_CHECKING:
    from .wallet import Hotkey

__all__ = ["HEADERS", "NonceStore", "public_key", "sign_request", "ss58", "verify", "verify_request"]

# The headers that sign a request, for whoever counts or strips them.
HEADERS = (
    http_auth.HEADER_VERSION,
    http_auth.HEADER_HOTKEY,
    http_auth.HEADER_RECEIVER,
    http_auth.HEADER_NONCE,
    http_auth.HEADER_CRYPTO,
    http_auth.HEADER_SIGNATURE,
)

MAX_AGE = http_auth.DEFAULT_MAX_AGE
ALLOWED_SKEW = http_auth.DEFAULT_ALLOWED_SKEW

_EXPECTS_TYPE = "expected_crypto_type" in inspect.signature(http_auth.verify).parameters


class NonceStore(Protocol):
    """Which (hotkey, nonce) pairs were accepted; must remember each for `max_age` plus `ALLOWED_SKEW`
    seconds."""

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        """True, and the pair is recorded, when it is new; False when it was accepted before."""
        ...


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the key's sr25519 signature of `message`; False for malformed bytes."""
    if len(signature) != SIGNATURE_SIZE:
        return False
    try:
        return bool(sp_core.verify(message, signature, ss58(public_key), CRYPTO_SR25519))
    except ValueError:
        return False


def sign_request(
    hotkey: Hotkey, *, method: str, path: str, body: bytes, receiver: str, nonce_ns: int | None = None
) -> dict[str, str]:
    """The headers that sign a request to the hotkey `receiver` (SS58).

    Args:
        path: the request target exactly as it is sent: percent-encoded path and, if any, "?" and the query.
        nonce_ns: nanoseconds since 1970, now by default. Sign again for each retry; a nonce serves once.
    """
    return http_auth.sign(
        hotkey.keypair, method=method, path=path, body=body, receiver_ss58=receiver, nonce_ns=nonce_ns
    )


def verify_request(
    headers: Mapping[str, str],
    body: bytes,
    *,
    method: str,
    path: str,
    receiver: str,
    nonces: NonceStore,
    max_age: float = MAX_AGE,
    now_ns: int | None = None,
) -> str:
    """The SS58 hotkey that signed the request; the nonce is then used up.

    Args:
        body: the raw bytes as received, before any parsing.
        path: the request target as received, not decoded.
        receiver: our own SS58 hotkey.
        max_age: for how many seconds a signature is good.

    Raises:
        RequestError: "unauthenticated"; unsigned, malformed, for someone else, stale, forged or replayed.
    """
    try:
        caller = _verify_sr25519(
            headers,
            body,
            method=method,
            path=path,
            self_hotkey_ss58=receiver,
            nonce_store=nonces,
            max_age=max_age,
            now_ns=now_ns,
        )
    except http_auth.AuthError as error:
        raise RequestError("unauthenticated", " ".join(str(error).split())) from error
    return str(caller.hotkey_ss58)


def _verify_sr25519(headers: Mapping[str, str], body: bytes, **options: Any) -> http_auth.Caller:
    lowered = {name.lower(): value for name, value in headers.items()}
    sender = lowered.get(http_auth.HEADER_HOTKEY.lower())
    if sender:
        try:
            public_key(sender)
        except ValueError:
            raise http_auth.MalformedAuth("the hotkey is no SS58 address of this network") from None
    if _EXPECTS_TYPE:
        options["expected_crypto_type"] = CRYPTO_SR25519
    elif lowered.get(http_auth.HEADER_CRYPTO.lower(), "sr25519") != "sr25519":
        raise http_auth.BadSignature("only sr25519 hotkeys are accepted")
    return http_auth.verify(headers, body, **options)
