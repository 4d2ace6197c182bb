"""Whether a challenge is answered, and the answer.

    403  the caller has no validator permit          (the axon's admission)
    400  no challenge, a stale block, another chain's block
    404  not one of our newest two commitments
    429  as many leaves are being read as can be in time, or as many as one validator may ask for at once
    503  a sector or a shard that the walk leads to is damaged, or its disk is away: said, and seen to

The same challenge asked twice is answered twice. Reading and hashing are done in threads of their own, which
nothing else uses; background work waits meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..allocator.errors import DamagedSectorError, DamagedShardError, SupersededError
from ..allocator.reader import CommittedReader, Reader
from ..challenge import MAX_HOPS, Challenge, answer
from ..errors import RequestError, StorageError
from ..hashchain import Sign
from ..service.duty import Trouble
from ..transport.axon import Call
from ..transport.messages import ChallengeMessage
from .blocks import Blocks, check_block
from .priority import Priority
from .turns import Turns

log = logging.getLogger(__name__)

THREADS = 4
#: Challenges, and hops, that are answered at once for one validator: so that whoever asks for the most
#: again and again makes itself wait, and not the others.
CALLER_CHALLENGES = 2
CALLER_HOPS = MAX_HOPS
#: Hops that are answered at once in all: 2 seconds for one core, half of a deadline.
MOST_HOPS = 4 * MAX_HOPS

T = TypeVar("T")


class Answers:
    """Answers challenges.

    Args:
        netuid, miner: ours; the miner is the public key.
        see_to: told on the event loop which sector is damaged; False when that is known.
        see_to_slots: told on the event loop that a shard is damaged, whose slot has ended.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        netuid: int,
        miner: bytes,
        sign: Sign,
        blocks: Blocks,
        priority: Priority,
        see_to: Callable[[int], bool],
        see_to_slots: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._netuid = netuid
        self._miner = miner
        self._sign = sign
        self._blocks = blocks
        self._priority = priority
        self._see_to = see_to
        self._see_to_slots = see_to_slots
        self._turns = Turns(
            "leaves are being read", most=MOST_HOPS, each=CALLER_HOPS, each_times=CALLER_CHALLENGES
        )
        self._trouble = Trouble("reading for a challenge")
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="answers")

    async def challenge(self, call: Call) -> bytes:
        """The raw answer to a challenge.

        Raises:
            RequestError: one of those above.
        """
        asked = call.json(ChallengeMessage)
        with self._turns.turn(call.neuron.hotkey, asked.hops):
            return await self._answered(call, asked)

    async def _answered(self, call: Call, asked: ChallengeMessage) -> bytes:
        with self._priority.answering():
            try:
                committed = await self._in_thread(self._reader.committed, asked.commitment)
                if committed is None:
                    raise RequestError(
                        "unknown", f"commitment {asked.commitment.hex()} is not one of our newest two"
                    )
                check_block(committed.commitment, asked.block_number, self._blocks.head)
                await self._blocks.check_hash(asked.block_number, asked.block_hash)
                challenge = Challenge(
                    block_hash=asked.block_hash,
                    netuid=self._netuid,
                    validator=call.neuron.public_key,
                    miner=self._miner,
                    commitment_hash=asked.commitment,
                    round=asked.round,
                )
                proof = await self._in_thread(self._answer, challenge, asked.hops, committed)
            except DamagedSectorError as error:
                if self._see_to(error.index):
                    log.warning("sector damaged sector=%d error=%r", error.index, str(error))
                raise RequestError(
                    "unready", f"sector {error.index} is damaged; it is being sealed again"
                ) from error
            except DamagedShardError as error:
                log.warning("shard damaged error=%r", error.message)
                self._see_to_slots()
                raise RequestError("unready", "a shard is damaged; filler takes its place") from error
            except SupersededError as error:
                raise RequestError(
                    "unknown", f"commitment {asked.commitment.hex()} is no longer one of our newest two"
                ) from error
            except StorageError as error:
                self._trouble.failed(error)
                raise RequestError("unready", "our disk cannot be read at the moment") from error
        self._trouble.worked()
        return proof

    def _answer(self, challenge: Challenge, hops: int, committed: CommittedReader) -> bytes:
        return answer(challenge.nonce, hops, committed.commitment, committed.opening, self._sign)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def close(self) -> None:
        """Let the threads end; what they do is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
