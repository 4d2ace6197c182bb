"""A sector of 1 GiB, sealed at its full cost, its honest keeper, and the adversaries who seal it again.

Only here does a rebuild cost what it costs: a sector of profile 0 is sealed in milliseconds, so whoever drops
one can make it again within any deadline. That is why it is for tests, and pays nothing on a real network.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from adversaries import asked, dropped_leaves
from validator_net import GENESIS, NETUID, PARAMETERS, VALIDATOR, Subnet, TestMiner

from tensorage import challenge as challenges
from tensorage import commitment as commitments
from tensorage import merkle, seal
from tensorage.chain.wallet import Hotkey
from tensorage.challenge import Challenge, Opening, answer
from tensorage.commitment import Commitment, SignedCommitment
from tensorage.errors import RequestError
from tensorage.transport.axon import Call, Reply
from tensorage.transport.messages import ChallengeMessage
from tensorage.validator.parameters import Parameters

ADVERSARY, YARDSTICK = "BigAdversary", "BigHonest"


class BigSector:
    """The sealed sector 0 of one miner, in a file, with its tree.

    Attributes:
        seal_seconds: of a core, without hashing and writing.
    """

    size = seal.MAIN.size

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        key = Hotkey.from_uri(f"//Miner/{name}").public_key
        self.identity = seal.sector_id(GENESIS, NETUID, key, seal.MAIN, 0)
        self._path = directory / f"{name}.sector"
        hashes: list[bytes] = []
        sealer = seal.Sealer(seal.MAIN)
        with self._path.open("wb") as file:
            before = time.thread_time()
            for _ in sealer.steps(self.identity):
                pass
            # The last pass is interleaved with hashing: it is counted as the mean of those before it.
            self.seal_seconds = (time.thread_time() - before) * seal.PASSES / (seal.PASSES - 1)
            for chunk in sealer.last_pass():
                hashes += merkle.leaf_hashes(chunk, seal.LEAF_SIZE)
                file.write(chunk)
        self.levels = merkle.levels(hashes)
        self._file = os.open(self._path, os.O_RDONLY)

    @property
    def root(self) -> bytes:
        return self.levels[-1][0]

    def leaf(self, number: int) -> bytes:
        return os.pread(self._file, seal.LEAF_SIZE, number * seal.LEAF_SIZE)

    def close(self) -> None:
        os.close(self._file)
        self._path.unlink()


class BigMiner(TestMiner):
    """Keeps a whole sector of 1 GiB and its tree, and hopes for nothing but its due."""

    def __init__(self, name: str, sector: BigSector) -> None:
        assert sector.name == name
        super().__init__(name, [])
        self.sector = sector

    def entries(self) -> list[tuple[int, bytes]]:
        return [(0, self.sector.root)]

    def commit(self, block: int) -> SignedCommitment:
        listed = self.entries()
        new = commitments.first_commitment(
            GENESIS, NETUID, self.key.public_key, seal.MAIN.number, listed, block
        )
        return self.publish(new, listed)

    def read(self, entry: int, leaf: int) -> Opening:
        return Opening(0, self.sector.leaf(leaf), merkle.path_in(self.sector.levels, leaf), [])

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        nonce = asked(self, message).nonce
        return await asyncio.to_thread(answer, nonce, message.hops, commitment, self.read, self.key.sign)

    async def _chunk_roots(self, call: Call) -> Reply:
        self.roots_served.append(call.number("index"))
        return b"".join(self.sector.levels[seal.CHUNK_HEIGHT])


class RebuildsOnDemand(BigMiner):
    """Keeps a fraction of the leaves, chosen evenly, and all hashes; seals again when asked for another leaf.

    Once it has sealed again it has the whole sector, so one seal is enough for a challenge. It goes on with
    it between the first asking and the second. Hopes to be done in time.

    Attributes:
        passes_done: of the 24, since the last challenge began.
    """

    def __init__(self, name: str, sector: BigSector, fraction: float) -> None:
        super().__init__(name, sector)
        self.fraction = fraction
        self.passes_done = 0
        self._gives_up = threading.Event()
        self._sealing = threading.Lock()
        self._sealed: list[memoryview] = []

    def keeps(self, leaf: int) -> bool:
        return leaf not in dropped_leaves(seal.MAIN.leaves, self.fraction)

    def read(self, entry: int, leaf: int) -> Opening:
        if self.keeps(leaf):
            return super().read(entry, leaf)
        chunk, within = divmod(leaf, seal.LEAVES_PER_CHUNK)
        at = within * seal.LEAF_SIZE
        data = bytes(self.sealed_again()[chunk][at : at + seal.LEAF_SIZE])
        return Opening(0, data, merkle.path_in(self.sector.levels, leaf), [])

    def sealed_again(self) -> list[memoryview]:
        """The chunks of the sector, sealed now unless they still are from the first asking."""
        with self._sealing:
            if not self._sealed:
                sealer = seal.Sealer(seal.MAIN)
                self.passes_done = 0
                for _ in sealer.steps(self.sector.identity):
                    self.passes_done += 1
                    if self._gives_up.is_set():
                        raise RequestError("unready", "too late for this one")
                self._sealed = list(sealer.last_pass())
            return self._sealed

    def next_challenge(self) -> None:
        """Give up the seal that is under way, and forget the one that was made: it would cost the disk."""
        self._gives_up.set()
        with self._sealing:
            self._gives_up.clear()
            self._sealed = []


class SeedsOnly(RebuildsOnDemand):
    """Keeps the 32 bytes that a sector is sealed from, and no hashes. Hopes to make all of it in time."""

    def __init__(self, name: str, sector: BigSector) -> None:
        super().__init__(name, sector, 0.0)

    def read(self, entry: int, leaf: int) -> Opening:
        hashes = [one for chunk in self.sealed_again() for one in merkle.leaf_hashes(chunk, seal.LEAF_SIZE)]
        chunk, within = divmod(leaf, seal.LEAVES_PER_CHUNK)
        at = within * seal.LEAF_SIZE
        data = bytes(self.sealed_again()[chunk][at : at + seal.LEAF_SIZE])
        return Opening(0, data, merkle.path(hashes, leaf), [])


@dataclass(frozen=True)
class Contest:
    """Two sectors of the same size, and the deadline that a rebuild is measured against.

    Attributes:
        directory: where the ledger is in which the honest miner was audited.
        deadline: seconds.
    """

    directory: Path
    adversary: BigSector
    yardstick: BigSector
    deadline: float

    @property
    def parameters(self) -> Parameters:
        return replace(PARAMETERS, hops=challenges.HOPS, deadline=self.deadline)

    def ledger_for(self, directory: Path) -> None:
        """Put a copy of the ledger where a validator that starts there goes on with it."""
        shutil.copy(self.directory / "validator.sqlite", directory / "validator.sqlite")


def leaves_met(miner: BigMiner, challenge: Challenge, hops: int) -> list[int]:
    """Where a walk goes that has all leaves."""
    state, met = challenge.nonce, []
    for _ in range(hops):
        met.append(challenges.leaf_index(state, seal.MAIN.leaves))
        state = challenges.next_state(state, miner.sector.leaf(met[-1]))
    return met


async def round_that(net: Subnet, miner: RebuildsOnDemand, hops: int, *, meets_missing: bool) -> None:
    """A round with the next block whose walk meets, or does not meet, a leaf that the miner dropped."""
    number = await net.book.run(net.book.ledger.last_round) + 1
    for blocks in range(1, 200):
        challenge = Challenge(
            net.chain.block(net.chain.height + blocks).hash,
            NETUID,
            VALIDATOR.public_key,
            miner.key.public_key,
            miner.chain[-1].commitment.hash,
            number,
        )
        missing = [leaf for leaf in leaves_met(miner, challenge, hops) if not miner.keeps(leaf)]
        if bool(missing) == meets_missing:
            try:
                await net.round(blocks=blocks)
            finally:
                await asyncio.to_thread(miner.next_challenge)
            return
    raise AssertionError("no such block among 200")
