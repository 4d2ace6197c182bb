"""Who may call: the signature, then the rate of its key, then its place on the subnet or with the route.

    401  unsigned, stale, replayed, for another receiver, or altered on the way
    429  too many requests of this key
    503  the metagraph is too old to say: fail closed
    403  not registered, without the validator permit that the route asks for, or no client of the route

A neuron signs with its hotkey (btauth/1); a client with a hotkey or, where it has none, with a key of its own
(keyauth/1). A route for clients says itself whom it knows, and needs no metagraph for that.

Checking a signature and writing its nonce down takes a worker thread of its own, so that the event loop never
waits for a disk. A nonce is written down only for a registered hotkey, or for a client that the route knows:
whoever makes up keys is refused anyway, replayed or not, and cannot fill the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Literal

from .. import keyauth
from ..chain.auth import NonceStore, public_key, verify_request
from ..chain.types import Metagraph, Neuron
from ..errors import ChainError, RequestError
from .limits import Rate, TokenBuckets
from .refusals import RateLimited

HOTKEY_HEADER = "x-bittensor-hotkey"


class Access(Enum):
    """What a route asks of its caller."""

    REGISTERED = "registered"
    VALIDATOR = "validator"
    CLIENT = "client"  # signed by whomever the route knows
    ANYONE = "anyone"  # unsigned; what must be proven is in the request itself


@dataclass(frozen=True, slots=True)
class Client:
    """Who signed a request.

    Attributes:
        kind: "hotkey" for btauth (sr25519), "key" for keyauth (Ed25519).
        public_key: 32 bytes.
        name: the SS58 address of a hotkey, the hex of a key.
        nonce_ns: of the request, nanoseconds since 1970.
        signature: of the request, for a key; None for a hotkey.
    """

    kind: Literal["hotkey", "key"]
    public_key: bytes
    name: str
    nonce_ns: int
    signature: bytes | None


Knows = Callable[[Client], bool]


class _Kept:
    """A nonce store for one request: it remembers who signed, and keeps the nonce if `keep` says so."""

    def __init__(self, nonces: NonceStore, keep: Knows) -> None:
        self.client: Client | None = None
        self._nonces = nonces
        self._keep = keep

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        self.client = Client("hotkey", public_key(hotkey_ss58), hotkey_ss58, nonce_ns, None)
        return not self._keep(self.client) or self._nonces.check_and_store(hotkey_ss58, nonce_ns)


class Admission:
    """Admits signed requests.

    Args:
        receiver: our own SS58 hotkey.
        metagraph: the subnet as it is known now, without I/O; raises StaleChainError when that is too old.
        nonces: used from one worker thread only.
        rate: for each hotkey and key.
        clock: seconds, steady.
    """

    def __init__(
        self,
        receiver: str,
        *,
        metagraph: Callable[[], Metagraph],
        nonces: NonceStore,
        rate: Rate,
        clock: Callable[[], float],
    ) -> None:
        retention = getattr(nonces, "retention", None)
        if retention is not None and retention < keyauth.MAX_AGE + keyauth.ALLOWED_SKEW:
            raise ValueError(f"nonces that are forgotten after {retention:g} s could be used again")
        self._receiver = receiver
        self._receiver_key = public_key(receiver)
        self._metagraph = metagraph
        self._nonces = nonces
        self._keys = TokenBuckets(rate)
        self._clock = clock
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="axon-auth")

    async def admit(
        self, headers: Mapping[str, str], body: bytes, *, method: str, target: str, access: Access
    ) -> tuple[Client, Neuron]:
        """Who signed this request to us, and the neuron that may make it.

        Args:
            body: raw, as received.
            target: the request target as it was sent: raw path and query.

        Raises:
            RequestError: "unauthenticated", "rate_limited" or "forbidden".
            StaleChainError: nobody can tell at the moment.
        """
        # One snapshot for both questions: a hotkey whose nonce is not kept must not pass below.
        metagraph = self._snapshot()

        def registered(client: Client) -> bool:
            return not isinstance(metagraph, ChainError) and metagraph.by_hotkey(client.name) is not None

        check = partial(self._hotkey, dict(headers), body, method, target, registered)
        client = await self._checked(check)
        if isinstance(metagraph, ChainError):
            raise metagraph
        return client, _permit(metagraph, client.name, access)

    async def admit_client(
        self, headers: Mapping[str, str], body: bytes, *, method: str, target: str, knows: Knows
    ) -> tuple[Client, Neuron | None]:
        """Who signed this request to us, with a hotkey or a key, and its neuron if it is known to have one.

        Args:
            knows: whether it may; asked in the worker thread, after the signature has passed.

        Raises:
            RequestError: "unauthenticated", "rate_limited" or "forbidden".
        """

        def known(client: Client) -> bool:
            if not knows(client):
                raise RequestError("forbidden", f"{client.kind} {client.name} has no access to this")
            return True

        by_key = keyauth.KEY_HEADER in headers
        if by_key and HOTKEY_HEADER in headers:
            raise RequestError("unauthenticated", "a request is signed by a hotkey or a key, not by both")
        client = await self._checked(
            partial(self._key if by_key else self._hotkey, dict(headers), body, method, target, known)
        )
        metagraph = self._snapshot()
        neuron = None if isinstance(metagraph, ChainError) else metagraph.by_hotkey(client.name)
        return client, neuron

    async def _checked(self, check: Callable[[], Client]) -> Client:
        client = await asyncio.get_running_loop().run_in_executor(self._worker, check)
        wait = self._keys.spend(client.name, self._clock())
        if wait:
            raise RateLimited(f"too many requests of {client.kind} {client.name}", wait)
        return client

    def _hotkey(
        self, headers: Mapping[str, str], body: bytes, method: str, target: str, keep: Knows
    ) -> Client:
        kept = _Kept(self._nonces, keep)
        verify_request(headers, body, method=method, path=target, receiver=self._receiver, nonces=kept)
        assert kept.client is not None
        return kept.client

    def _key(self, headers: Mapping[str, str], body: bytes, method: str, target: str, keep: Knows) -> Client:
        signed = keyauth.verify_request(
            headers, body, method=method, path=target, receiver=self._receiver_key, now_ns=time.time_ns()
        )
        client = Client("key", signed.key, signed.key.hex(), signed.nonce_ns, signed.signature)
        if keep(client) and not self._nonces.check_and_store(client.name, client.nonce_ns):
            raise RequestError("unauthenticated", "this nonce was already accepted from this key")
        return client

    def _snapshot(self) -> Metagraph | ChainError:
        try:
            return self._metagraph()
        except ChainError as error:
            return error

    def close(self) -> None:
        """Let the worker thread end."""
        self._worker.shutdown(wait=False)


def _permit(metagraph: Metagraph, caller: str, access: Access) -> Neuron:
    neuron = metagraph.by_hotkey(caller)
    if neuron is None:
        raise RequestError("forbidden", f"hotkey {caller} is not registered on this subnet")
    if access is not Access.REGISTERED and not neuron.validator_permit:
        raise RequestError("forbidden", f"hotkey {caller} (uid {neuron.uid}) has no validator permit")
    return neuron
