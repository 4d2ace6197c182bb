"""The adversaries over sectors of 4 MiB. Each says what it keeps, and what it hopes for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from validator_net import GENESIS, NETUID, VALIDATOR, TestMiner, leaves_of

from tensorage import argon2d, merkle, seal
from tensorage import commitment as commitments
from tensorage.chain.wallet import Hotkey
from tensorage.challenge import Challenge, Opening, answer
from tensorage.commitment import Commitment, SignedCommitment
from tensorage.encoding import SIGNATURE_SIZE, sha256, u64
from tensorage.errors import RequestError
from tensorage.transport.axon import Call, Reply
from tensorage.transport.messages import ChallengeMessage

OTHER_VALIDATOR = Hotkey.from_uri("//OtherValidator")


def opening(miner: TestMiner, commitment: Commitment, entry: int, leaf: int) -> Opening:
    """The right opening, from what is on the miner's disk."""
    entries = miner.listings[commitment.hash]
    hashes = [commitments.capacity_leaf(*one) for one in entries]
    index = entries[entry][0]
    data = miner.disk[index]
    at = leaf * seal.LEAF_SIZE
    path = merkle.path(leaves_of(data), leaf)
    return Opening(index, data[at : at + seal.LEAF_SIZE], path, merkle.path(hashes, entry))


def asked(miner: TestMiner, message: ChallengeMessage, validator: bytes = VALIDATOR.public_key) -> Challenge:
    """The challenge that a message stands for."""
    return Challenge(
        message.block_hash, NETUID, validator, miner.key.public_key, message.commitment, message.round
    )


def made_up(index: int, leaf: int) -> bytes:
    """Bytes of a leaf that cost nothing to make."""
    return np.random.default_rng([index, leaf]).bytes(seal.LEAF_SIZE)


@lru_cache(maxsize=8)
def dropped_leaves(leaves: int, fraction: float) -> frozenset[int]:
    """The leaves that a miner dropped who keeps exactly this fraction of them, chosen evenly."""
    order = sorted(range(leaves), key=lambda leaf: sha256(b"dropped" + u64(leaf)))
    return frozenset(order[: round((1 - fraction) * leaves)])


class HashesOnly(TestMiner):
    """Keeps every tree whole and no leaf at all: 32 bytes of 4,096. Hopes that right paths are enough."""

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        def read(entry: int, leaf: int) -> Opening:
            right = opening(self, commitment, entry, leaf)  # of which it uses the paths only
            return replace(right, leaf=made_up(entry, leaf))

        return answer(asked(self, message).nonce, message.hops, commitment, read, self.key.sign)


class SealedInFewerPasses(TestMiner):
    """Keeps all it committed to, sealed in 4 passes, so that dropped blocks would be cheap to make again.

    Hopes that nobody looks how the bytes were made.
    """

    def __init__(self, name: str, indices: range, passes: int = 4) -> None:
        super().__init__(name, [])
        matrix = np.empty((seal.DEV.size // argon2d.BLOCK_SIZE, argon2d.WORDS), np.uint64)
        for index in indices:
            identity = seal.sector_id(GENESIS, NETUID, self.key.public_key, seal.DEV, index)
            argon2d.start(matrix, identity, seal.SALT, passes)
            for number in range(passes):
                argon2d.fill(matrix, number, 0, len(matrix))
            self.disk[index] = matrix.tobytes()


class Zeros(TestMiner):
    """Keeps nothing: its sectors are zeros, which any program can answer with. Hopes not to be audited."""

    def __init__(self, name: str, indices: range) -> None:
        super().__init__(name, [])
        self.disk = dict.fromkeys(indices, bytes(seal.DEV.size))


class SecondHotkey(TestMiner):
    """Keeps nothing of its own: commits to the sectors of another hotkey. Hopes to be paid for them too."""

    def __init__(self, name: str, owner: TestMiner) -> None:
        super().__init__(name, [])
        self.disk = dict(owner.disk)


class Proxy(SecondHotkey):
    """Keeps nothing: hands what it is asked to the owner of the sectors, who plays along.

    Args:
        own_nonce: whether the owner walks from the nonce of this hotkey, or from its own as it is used to.
    """

    def __init__(self, name: str, owner: TestMiner, *, own_nonce: bool) -> None:
        super().__init__(name, owner)
        self.owner = owner
        self.own_nonce = own_nonce

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        challenge = asked(self if self.own_nonce else self.owner, message)

        def read(entry: int, leaf: int) -> Opening:
            return opening(self.owner, self.owner.chain[-1].commitment, entry, leaf)

        return answer(challenge.nonce, message.hops, commitment, read, self.owner.key.sign)


class Forger(TestMiner):
    """Keeps everything, so that nothing but the form of its answers can be what is wrong.

    Args:
        forge: makes another answer of a right one, given the size of a hop in bytes.
    """

    def __init__(self, name: str, indices: range, forge: Callable[[bytes, int], bytes]) -> None:
        super().__init__(name, indices)
        self.forge = forge

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        right = await super().honest(commitment, message)
        return self.forge(right, (len(right) - SIGNATURE_SIZE) // message.hops)


class AnotherPlace(TestMiner):
    """Keeps the first half of each sector. Asked for a leaf of the other half, it opens one that it has.

    Hopes that a leaf and a path that verify are enough, wherever they are.
    """

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        def read(entry: int, leaf: int) -> Opening:
            return opening(self, commitment, entry, leaf % (seal.DEV.leaves // 2))

        return answer(asked(self, message).nonce, message.hops, commitment, read, self.key.sign)


class Replayer(TestMiner):
    """Keeps old answers in place of sectors. Hopes that one of them serves again.

    Args:
        other: the challenge that it has an answer to, made of the one that is put.
    """

    def __init__(
        self, name: str, indices: range, other: Callable[[TestMiner, ChallengeMessage], Challenge]
    ) -> None:
        super().__init__(name, indices)
        self.other = other

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        def read(entry: int, leaf: int) -> Opening:
            return opening(self, commitment, entry, leaf)

        return answer(self.other(self, message).nonce, message.hops, commitment, read, self.key.sign)


class Partial(TestMiner):
    """Keeps a fraction of the leaves and all trees, answers when the walk meets none of the others.

    Refuses when it would. Hopes that refusing costs less than it saves.
    """

    def __init__(self, name: str, indices: range, fraction: float) -> None:
        super().__init__(name, indices)
        self.fraction = fraction

    def keeps(self, entry: int, leaf: int) -> bool:
        dropped = dropped_leaves(len(self.disk) * seal.DEV.leaves, self.fraction)
        return entry * seal.DEV.leaves + leaf not in dropped

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        return self.walk(commitment, asked(self, message), message.hops)

    def walk(self, commitment: Commitment, challenge: Challenge, hops: int) -> bytes:
        def read(entry: int, leaf: int) -> Opening:
            if not self.keeps(entry, leaf):
                raise RequestError("unready", "just a moment")
            return opening(self, commitment, entry, leaf)

        return answer(challenge.nonce, hops, commitment, read, self.key.sign)


class Grinder(Partial):
    """Keeps a fraction of the leaves and dates its commitment back to a block whose hash it knows.

    It tries dates until the walk from that block meets only what it keeps. Hopes to be asked with that block.
    """

    def grind(self, block_hash: bytes, round_number: int, hops: int) -> Challenge:
        """Commit so that the challenge with this block, which it knows, is an easy one; returns that."""
        entries = self.entries()
        for date in range(1, 100):
            new = commitments.first_commitment(GENESIS, NETUID, self.key.public_key, 0, entries, date)
            easy = Challenge(
                block_hash, NETUID, VALIDATOR.public_key, self.key.public_key, new.hash, round_number
            )
            self.publish(new, entries)
            try:
                self.walk(new, easy, hops)
            except RequestError:
                self.chain.clear()
                continue
            return easy
        raise AssertionError("no date gives an easy walk")


class FarDisk(TestMiner):
    """Keeps nothing here: each leaf is read from a host that is a round trip away.

    Hopes that a challenge is one request. But where the next leaf is stands in the last one.
    """

    def __init__(self, name: str, indices: range, round_trip: float) -> None:
        super().__init__(name, indices)
        self.round_trip = round_trip

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        loop = asyncio.get_running_loop()

        def read(entry: int, leaf: int) -> Opening:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(self.round_trip), loop).result()
            return opening(self, commitment, entry, leaf)

        nonce = asked(self, message).nonce
        return await asyncio.to_thread(answer, nonce, message.hops, commitment, read, self.key.sign)


class Endless(TestMiner):
    """Keeps everything and sends a byte now and then, for ever. Hopes to hold up the validator's round."""

    def __init__(self, name: str, indices: range) -> None:
        super().__init__(name, indices)
        self.sent = 0

    async def _challenge(self, call: Call) -> Reply:
        self.asked.append(call.json(ChallengeMessage))

        async def drip() -> AsyncIterator[bytes]:
            while True:
                self.sent += 1
                yield b"\0"
                await asyncio.sleep(0.05)

        return drip()


class Flood(TestMiner):
    """Keeps everything, and remembers all of its commitments, of which it shows new ones all the time.

    Hopes to drown the validator in listings, or that nothing of it is ever old enough to be asked about.
    """

    def __init__(self, name: str, indices: range) -> None:
        super().__init__(name, indices)
        self.listings_served = 0
        self.commitments_served = 0

    def commit(self, block: int) -> SignedCommitment:
        signed = super().commit(block)
        assert self.listings[signed.commitment.hash] == self.listed
        return signed

    async def _challenge(self, call: Call) -> Reply:
        message = call.json(ChallengeMessage)
        self.asked.append(message)
        committed = {signed.commitment.hash: signed.commitment for signed in self.chain}
        return await self.honest(committed[message.commitment], message)

    async def _sectors(self, call: Call) -> Reply:
        self.listings_served += call.number("from", 0) == 0
        return await super()._sectors(call)

    async def _commitment(self, call: Call) -> Reply:
        self.commitments_served += 1
        return await super()._commitment(call)


@lru_cache(maxsize=1)
def some_roots(count: int) -> list[tuple[int, bytes]]:
    """A listing of sectors that nobody ever made."""
    return [(index, sha256(b"no sector" + u64(index))) for index in range(count)]
