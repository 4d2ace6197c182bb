"""Asking one miner: requests out, facts back. What they mean is decided elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from time import perf_counter
from typing import TypeVar

from .. import challenge as challenges
from ..challenge import Challenge, WrongAnswerError
from ..commitment import Commitment, Entry, SignedCommitment, check_listing
from ..displaced import MOST_SLOTS
from ..errors import ProofError
from ..hashchain import Verify
from ..receipts import Verdict, line
from ..transport.dendrite import Addressed, Dendrite, Late, Malformed, PeerError, Refused
from ..transport.file_calls import MinerCalls
from ..transport.messages import ChallengeMessage
from .judge import Attempt
from .lag import LagMeter
from .ledger import LedgerIdentity
from .parameters import Parameters
from .slots import Change, Slot, Transition, split

T = TypeVar("T")

_CHUNK_ROOTS_SECONDS = 10.0
_LISTING_SECONDS = 60.0
_TRANSITION_SECONDS = 10.0


class Exchange:
    """Asks miners over one dendrite.

    Args:
        worker: where proofs are verified, off the event loop.
    """

    def __init__(
        self,
        dendrite: Dendrite,
        identity: LedgerIdentity,
        parameters: Parameters,
        verify: Verify,
        lag: LagMeter,
        worker: Executor,
    ) -> None:
        self._dendrite = dendrite
        self._calls = MinerCalls(dendrite)
        self._identity = identity
        self._parameters = parameters
        self.verify = verify
        self._lag = lag
        self._worker = worker

    async def is_miner(self, peer: Addressed) -> bool:
        """Whether a miner serves there, by its own word.

        Raises:
            PeerError: nobody says.
        """
        ping = await self._dendrite.ping(peer, deadline=self._parameters.deadline)
        return ping.role == "miner"

    async def commitment(self, peer: Addressed, miner: bytes, seq: int | None = None) -> SignedCommitment:
        """The newest commitment of a miner, or the one of `seq`; its hash and signature are checked.

        Raises:
            PeerError: it did not come.
            ProofError: it is not the miner's, or makes no sense.
        """
        message = await self._dendrite.commitment(peer, seq, deadline=self._parameters.deadline)
        signed = message.signed(genesis=self._identity.genesis, netuid=self._identity.netuid, miner=miner)
        signed.check(self.verify)
        return signed

    async def listing(self, peer: Addressed, commitment: Commitment) -> list[Entry]:
        """The entries of the newest commitment, checked against it.

        Raises:
            PeerError: they did not come. Malformed and ProofError: they are not the committed ones.
        """
        try:
            entries = await asyncio.wait_for(
                self._dendrite.sectors(peer, commitment.sector_count, deadline=self._parameters.deadline),
                _LISTING_SECONDS,
            )
        except asyncio.TimeoutError as error:
            raise Late(f"the listing was not whole after {_LISTING_SECONDS:g} s") from error
        await self.in_worker(check_listing, commitment, entries)
        return entries

    async def chunk_roots(self, peer: Addressed, sector: int, count: int) -> list[bytes]:
        """The chunk roots of a sector, unchecked.

        Raises:
            PeerError: they did not come.
        """
        return await self._dendrite.chunk_roots(peer, sector, count, deadline=_CHUNK_ROOTS_SECONDS)

    async def slots(self, peer: Addressed) -> list[Slot]:
        """The slots of the newest commitment, by the miner's word; none when it does not know what these are.

        Raises:
            PeerError: they did not come, or are over `MOST_SLOTS`.
        """
        asking = self._calls.slots(peer, MOST_SLOTS, deadline=self._parameters.deadline)
        try:
            named = await asyncio.wait_for(asking, _LISTING_SECONDS)
            return [Slot(slot.sector, slot.chunk, slot.signed()) for slot in named]
        except asyncio.TimeoutError as error:
            raise Late(f"the slots were not whole after {_LISTING_SECONDS:g} s") from error
        except Refused as error:
            if error.kind != "unknown":
                raise
            return []
        except ProofError as error:
            raise Malformed(f"a slot is not named with a ticket: {error.message}") from error

    async def transition(self, peer: Addressed, sector: int, before: int, chunks: int) -> Transition:
        """How a sector came from commitment `before` (its seq) to the newest, by the miner's word.

        Raises:
            PeerError: it did not come.
        """
        told = await self._calls.transition(peer, sector, before, chunks, deadline=_TRANSITION_SECONDS)
        changed = {each.chunk: Change(each.node, tuple(each.siblings)) for each in told.changed}
        return Transition(split(told.before), split(told.after), changed)

    async def challenge(
        self, peer: Addressed, commitment: Commitment, challenge: Challenge, block_number: int
    ) -> Attempt:
        """Put a challenge once, and verify the answer."""
        parameters = self._parameters
        message = ChallengeMessage(
            commitment=commitment.hash,
            block_number=block_number,
            block_hash=challenge.block_hash,
            round=challenge.round,
            hops=parameters.hops,
        )
        mark, started = self._lag.mark(), perf_counter()
        try:
            answer, elapsed = await self._dendrite.challenge(
                peer,
                message,
                # One byte more than can be right, so that a long answer is seen to be wrong.
                max_bytes=challenges.max_answer_size(commitment, parameters.hops) + 1,
                deadline=parameters.deadline,
            )
        except PeerError as error:
            spent = perf_counter() - started
            return failure(error, spent, await self._lag.since(mark))
        if elapsed > parameters.deadline:  # it was there before our timer could end the call
            late = Late(f"the answer took {elapsed:.2f} s, {parameters.deadline:g} s are allowed")
            return failure(late, elapsed, await self._lag.since(mark))
        try:
            walk = await self.in_worker(
                challenges.verify_answer, challenge.nonce, parameters.hops, commitment, answer, self.verify
            )
        except WrongAnswerError as error:
            return Attempt(Verdict.WRONG, "answer", line(error.message), elapsed, evidence=answer)
        return Attempt(
            Verdict.PASSED,
            "",
            f"{parameters.hops} leaves in {elapsed * 1000:.0f} ms",
            elapsed,
            leaves=parameters.hops,
            evidence=answer,
            final_state=walk.final_state,
        )

    async def in_worker(self, work: Callable[..., T], *arguments: object) -> T:
        """Do some work that takes its time, in the worker's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, partial(work, *arguments))


def failure(error: PeerError, elapsed: float = 0.0, stalled: float = 0.0) -> Attempt:
    """A request that brought nothing, as an attempt.

    An answer to a challenge that is no answer at all is wrong, like any bytes that do not verify.
    """
    if isinstance(error, Late):
        verdict, kind = Verdict.LATE, "late"
    elif isinstance(error, Refused):
        verdict, kind = Verdict.REFUSED, error.kind or str(error.status)
    elif isinstance(error, Malformed):
        verdict, kind = Verdict.WRONG, "malformed"
    else:
        verdict, kind = Verdict.UNREACHABLE, "unreachable"
    return Attempt(verdict, kind, line(error.message), elapsed, stalled)


def proof_failure(error: ProofError, kind: str) -> Attempt:
    """Bytes outside a challenge that are not what the miner signed for, as an attempt."""
    return Attempt(Verdict.WRONG, kind, line(error.message))
