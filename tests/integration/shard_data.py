"""Clients' shards for tests of the allocator: tickets, their bytes, and what a sector must be with them."""

import random
import time
from functools import lru_cache
from hashlib import sha256

from allocator_data import ME

from tensorage import challenge, merkle, shard
from tensorage.allocator.reader import Reader
from tensorage.allocator.shards import ShardStore, Upload
from tensorage.allocator.upkeep import DataDirectory
from tensorage.allocator.worker import Worker
from tensorage.chain.address import ss58
from tensorage.seal import LEAF_SIZE, Sealer
from tensorage.ticket import SignedTicket, Stored, Ticket

VALIDATOR = b"v" * 32
FAR = 1 << 40  # seconds since 1970


def sign(message: bytes) -> bytes:
    return sha256(message).digest() * 2


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    return key == ME.hotkey and signature == sign(message)


@lru_cache(64)
def bytes_of(number: int, leaves: int) -> bytes:
    """The bytes of a shard, told by its number."""
    return random.Random(number).randbytes(leaves * LEAF_SIZE)


@lru_cache(256)
def ticket(
    number: int, leaves: int = 16, *, expires: int = FAR, validator: bytes = VALIDATOR
) -> SignedTicket:
    """The ticket of a shard; its number is the serial."""
    root = shard.shard_root(bytes_of(number, leaves))
    fields = Ticket(ME.genesis, ME.netuid, validator, b"c" * 32, ME.hotkey, root, leaves, expires, number)
    return SignedTicket(fields, b"s" * 64)


def put(shards: ShardStore, signed: SignedTicket, *, step: int = 65_536, now: int | None = None) -> Stored:
    """Store a shard as a client does."""
    data = bytes_of(signed.ticket.serial, signed.ticket.leaves)
    taken = shards.admit(signed, int(time.time()) if now is None else now)
    if isinstance(taken, Stored):
        return taken
    assert isinstance(taken, Upload)
    with taken:
        for start in range(0, len(data), step):
            taken.write(data[start : start + step])
        return taken.finish(sign, time.time_ns() // 1_000_000)


def grant(data: DataDirectory, chunks: int, validator: bytes = VALIDATOR) -> None:
    """Give a validator a quota."""
    data.store.set_partition({ss58(validator): chunks})


def bytes_kept(shards: ShardStore, signed: SignedTicket) -> bytes:
    """The whole shard, as a client reads it."""
    fields = signed.ticket
    answer = shards.read(fields.hash, 0, fields.leaves)
    return bytes(shard.read_piece(fields.shard_root, fields.leaves, 0, fields.leaves, answer))


def answers_all(data: DataDirectory, *, newest_only: bool = False, step: int = 16) -> list[int]:
    """Open every `step`th leaf under each commitment that is answered; their numbers."""
    newest = data.store.commitment()
    if newest is None:
        return []
    reader = Reader(data.store)
    answered = []
    try:
        last = newest.commitment.seq
        for seq in range(last if newest_only else max(1, last - 1), last + 1):
            signed = data.store.commitment(seq)
            committed = reader.committed(signed.commitment.hash)
            for entry in range(len(committed.entries)):
                for leaf_number in range(seq % 16, 1024, step):
                    opening = committed.opening(entry, leaf_number)
                    leaf = merkle.leaf_hash(opening.leaf)
                    root = merkle.root_from_path(leaf, leaf_number, 1024, opening.leaf_path)
                    assert root == committed.entries[entry][1]
            answer = challenge.answer(bytes(32), 8, committed.commitment, committed.opening, sign)
            challenge.verify_answer(bytes(32), 8, committed.commitment, answer, verify)
            answered.append(seq)
    finally:
        reader.close()
    return answered


def root_with(index: int, shards: dict[int, SignedTicket]) -> bytes:
    """The root of a sector of one chunk, computed from whole bytes: its filler, or with the shard there."""
    filler = bytearray(Sealer(ME.sectors).seal(ME.sector_id(index)))
    if index in shards:
        fields = shards[index].ticket
        filler[: fields.size] = bytes_of(fields.serial, fields.leaves)
    return merkle.root(merkle.leaf_hashes(bytes(filler), LEAF_SIZE))


class Alone(DataDirectory):
    """A data directory whose work is done in this process: for tests that do it very often."""

    worker = Worker(ME.sectors)

    def _run(self, jobs, workers, control, observer, on_nodes, on_damaged):
        for job in jobs:
            order = {"index": job.index, "path": str(job.path)}
            if job.seal:
                order["seal"] = self.identity.sector_id(job.index).hex()
            if job.ranges:
                order["ranges"] = job.ranges
            *_, last = self.worker.messages(order)
            if isinstance(last, bytes):
                on_nodes(job, last)
            else:
                on_damaged(job, last["damaged"])
        return True
