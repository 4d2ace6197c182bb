"""Who may call: the signature, then the rate of its hotkey, then its place on the subnet.

    401  unsigned, stale, replayed, for another receiver, or altered on the way
    429  too many requests of this hotkey
    503  the metagraph is too old to say: fail closed
    403  not registered, or without the validator permit that the route asks for

Checking a signature and writing its nonce down takes a worker thread of its own, so that the event loop never
waits for a disk. A nonce is written down only for a registered hotkey: whoever makes up hotkeys is
refused anyway, replayed or not, and cannot fill the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial

from ..chain.auth import NonceStore, verify_request
from ..chain.types import Metagraph, Neuron
from ..errors import ChainError, RequestError
from .limits import Rate, TokenBuckets
from .refusals import RateLimited

HOTKEY_HEADER = "x-bittensor-hotkey"


class Access(Enum):
    """What a route asks of its caller."""

    REGISTERED = "registered"
    VALIDATOR = "validator"


class _Forgetful:
    """A nonce store for callers that are refused whatever they sign."""

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        return True


class Admission:
    """Admits signed requests.

    Args:
        receiver: our own SS58 hotkey.
        metagraph: the subnet as it is known now, without I/O; raises StaleChainError when that is too old.
        nonces: used from one worker thread only.
        rate: for each hotkey.
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
        self._receiver = receiver
        self._metagraph = metagraph
        self._nonces = nonces
        self._hotkeys = TokenBuckets(rate)
        self._clock = clock
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="axon-auth")

    async def admit(
        self, headers: Mapping[str, str], body: bytes, *, method: str, target: str, access: Access
    ) -> Neuron:
        """The neuron that signed this request to us and may make it.

        Args:
            body: raw, as received.
            target: the request target as it was sent: raw path and query.

        Raises:
            RequestError: "unauthenticated", "rate_limited" or "forbidden".
            StaleChainError: nobody can tell at the moment.
        """
        # One snapshot for both questions: a hotkey whose nonce is not kept must not pass below.
        metagraph = self._snapshot()
        claimed = headers.get(HOTKEY_HEADER, "")
        known = not isinstance(metagraph, ChainError) and metagraph.by_hotkey(claimed) is not None
        check = partial(
            verify_request,
            dict(headers),
            body,
            method=method,
            path=target,
            receiver=self._receiver,
            nonces=self._nonces if known else _Forgetful(),
        )
        caller = await asyncio.get_running_loop().run_in_executor(self._worker, check)
        wait = self._hotkeys.spend(caller, self._clock())
        if wait:
            raise RateLimited(f"too many requests of hotkey {caller}", wait)
        if isinstance(metagraph, ChainError):
            raise metagraph
        return _permit(metagraph, caller, access)

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
    if access is Access.VALIDATOR and not neuron.validator_permit:
        raise RequestError("forbidden", f"hotkey {caller} (uid {neuron.uid}) has no validator permit")
    return neuron
