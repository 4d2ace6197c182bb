"""A miner for the validator tests that keeps clients' shards: sectors of one chunk, one shard in each."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from validator_net import GENESIS, NETUID, VALIDATOR, TestMiner, leaves_of

from tensorage import displaced, merkle, seal
from tensorage.chain.wallet import Hotkey
from tensorage.commitment import SignedCommitment
from tensorage.encoding import sha256
from tensorage.errors import RequestError
from tensorage.shard import shard_root
from tensorage.ticket import SignedTicket, Ticket
from tensorage.transport.axon import Access, Axon, Call, Reply
from tensorage.transport.file_messages import ChangedChunk, SlotMessage, SlotsPage, Transition

EXPIRES = 1_800_000_000 + 30 * 86_400


@lru_cache(maxsize=64)
def shard_bytes(serial: int, leaves: int) -> bytes:
    """The bytes of a shard, which whoever knows the two can make again."""
    return np.random.default_rng([serial, leaves]).bytes(leaves * seal.LEAF_SIZE)


@lru_cache(maxsize=64)
def root_of(data: bytes) -> bytes:
    return shard_root(data)


def first_node(data: bytes, leaves: int) -> bytes:
    """The root of the first leaves of a chunk."""
    return merkle.root(leaves_of(data)[:leaves])


def beside(data: bytes, leaves: int) -> list[bytes]:
    """The siblings of the first leaves of a chunk on the way up."""
    return displaced.siblings(merkle.level(leaves_of(data), 4), leaves)


class Keeper(TestMiner):
    """Keeps its sectors, and shards where it has tickets for them; honest, unless a test changes it.

    Attributes:
        filler: what sealing made of each sector.
        slots: the ticket in each sector that has one.
        named: what it names for the newest commitment.
        transitions: (sector, seq) that it was asked about.
    """

    def __init__(self, name: str, indices: range | list[int] = range(2)) -> None:
        super().__init__(name, indices)
        self.filler = dict(self.disk)
        self.slots: dict[int, SignedTicket] = {}
        self.named: dict[int, SignedTicket] = {}
        self.transitions: list[tuple[int, int]] = []
        self._versions: dict[bytes, bytes] = {}
        self._roots: dict[int, dict[int, bytes]] = {}

    def ticket(
        self, serial: int, leaves: int = 1024, signer: Hotkey = VALIDATOR, **changes: object
    ) -> SignedTicket:
        """A ticket for the shard of a serial, signed by a validator."""
        fields = {
            "genesis": GENESIS,
            "netuid": NETUID,
            "validator": signer.public_key,
            "client": sha256(b"client"),
            "miner": self.key.public_key,
            "shard_root": root_of(shard_bytes(serial, leaves)),
            "leaves": leaves,
            "expires": EXPIRES,
            "serial": serial,
        }
        ticket = Ticket(**{**fields, **changes})  # type: ignore[arg-type]
        return SignedTicket(ticket, signer.sign(ticket.hash))

    def put(self, index: int, signed: SignedTicket, data: bytes | None = None) -> None:
        """Have a shard take the front of a sector."""
        data = shard_bytes(signed.ticket.serial, signed.ticket.leaves) if data is None else data
        self.slots[index] = signed
        self.disk[index] = data + self.filler[index][len(data) :]

    def give_back(self, index: int) -> None:
        """Have the filler of a sector back."""
        del self.slots[index]
        self.disk[index] = self.filler[index]

    def commit(self, block: int) -> SignedCommitment:
        signed = super().commit(block)
        self.named = dict(self.slots)
        self._roots[signed.commitment.seq] = dict(self.listed)
        self._versions.update({root: self.disk[index] for index, root in self.listed})
        return signed

    def kept(self, index: int, root: bytes) -> bytes | None:
        return self._versions.get(root)

    def attach(self, axon: Axon) -> None:
        axon.route("GET", "/v1/slots", self._slots, access=Access.REGISTERED)
        axon.route("GET", "/v1/sectors/{index}/transition", self._transition, access=Access.REGISTERED)

    async def _slots(self, call: Call) -> Reply:
        start, limit = call.number("from", 0), call.number("limit", 1024)
        named = [
            SlotMessage(sector=index, chunk=0, ticket=signed.encode())
            for index, signed in sorted(self.named.items())
        ]
        page = named[start : start + limit]
        return SlotsPage(slots=page, next=start + limit if start + limit < len(named) else None)

    async def _transition(self, call: Call) -> Reply:
        index, seq = call.number("index"), call.number("before")
        self.transitions.append((index, seq))
        newest = self.chain[-1].commitment.seq
        if seq not in self._roots or index not in self._roots[seq] or seq < newest - 1:
            raise RequestError("unknown", f"there is no commitment {seq}")
        return self.transition(index, self._roots[seq][index], self._roots[newest][index])

    def transition(self, index: int, before: bytes, after: bytes) -> Transition:
        """How a sector came from one root to another."""
        changed = []
        if before != after and index in self.named:
            changed.append(self.change(index, self.named[index].ticket.leaves))
        return Transition(before=before, after=after, changed=changed)

    def change(self, index: int, leaves: int) -> ChangedChunk:
        """How the front of a sector gave way."""
        filler = self.filler[index]
        return ChangedChunk(chunk=0, node=first_node(filler, leaves), siblings=beside(filler, leaves))
