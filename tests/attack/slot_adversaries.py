"""The adversaries over clients' slots. Each says what it keeps, and what it hopes for.

They begin as honest keepers and have all their credit; a test then has them turn (`turn`).
"""

from __future__ import annotations

from collections.abc import Callable

from slots_net import Keeper, beside, first_node, shard_bytes

from tensorage import seal
from tensorage.chain.wallet import Hotkey
from tensorage.commitment import Commitment, SignedCommitment
from tensorage.encoding import sha256
from tensorage.errors import RequestError
from tensorage.ticket import SignedTicket
from tensorage.transport.axon import Call, Reply
from tensorage.transport.file_messages import ChangedChunk, SlotMessage, SlotsPage
from tensorage.transport.messages import ChallengeMessage

NOBODY = Hotkey.from_uri("//Nobody")
COLLUDER = Hotkey.from_uri("//ColludingValidator")

Issue = Callable[[Keeper, int], SignedTicket]


def forged(miner: Keeper, serial: int) -> SignedTicket:
    """A ticket in the validator's name that somebody else signed."""
    signed = miner.ticket(serial)
    return SignedTicket(signed.ticket, NOBODY.sign(signed.ticket.hash))


def for_another(miner: Keeper, serial: int) -> SignedTicket:
    """A good ticket, which is another miner's."""
    return miner.ticket(serial, miner=sha256(b"another miner"))


def of_another_subnet(miner: Keeper, serial: int) -> SignedTicket:
    return miner.ticket(serial, netuid=999)


def ended(miner: Keeper, serial: int) -> SignedTicket:
    return miner.ticket(serial, expires=1_700_000_000)


def without_permit(miner: Keeper, serial: int) -> SignedTicket:
    """A ticket that a key of its own signed: anybody has such."""
    return miner.ticket(serial, signer=NOBODY)


def one_for_all(miner: Keeper, serial: int) -> SignedTicket:
    return miner.ticket(1)


class Tickets(Keeper):
    """Keeps nothing where it names slots: bytes there are made when they are asked for, from a number.

    Hopes that a ticket of any kind is as good as filler.

    Args:
        issue: makes the ticket of a serial.
    """

    def __init__(self, name: str, indices: range, issue: Issue) -> None:
        super().__init__(name, indices)
        self.issue = issue

    def turn(self, *indices: int) -> None:
        for index in indices:
            signed = self.issue(self, index + 1)
            self.put(index, signed)


class Unnamed(Keeper):
    """Keeps a client's shard, or what it says is one, and does not name it.

    Hopes that a sector that has changed is not looked at again.
    """

    def turn(self, index: int) -> None:
        self.put(index, self.ticket(1))

    def commit(self, block: int) -> SignedCommitment:
        signed = super().commit(block)
        self.named = {}
        return signed


class TinyShard(Keeper):
    """Keeps a client's shard of 64 KiB, and garbage that costs nothing to make in the rest of the chunk.

    Hopes to be paid for 4 MiB.

    Args:
        own_hashes: whether it shows the hashes of its garbage, or those of the filler that was there.
    """

    def __init__(self, name: str, indices: range, *, own_hashes: bool) -> None:
        super().__init__(name, indices)
        self.own_hashes = own_hashes

    def turn(self, index: int) -> None:
        signed = self.ticket(1, 16)
        self.slots[index] = signed
        self.disk[index] = shard_bytes(1, 16) + shard_bytes(2, 1024)[16 * seal.LEAF_SIZE :]

    def change(self, index: int, leaves: int) -> ChangedChunk:
        if not self.own_hashes:
            return super().change(index, leaves)
        garbage = self.disk[index]
        return ChangedChunk(
            chunk=0, node=first_node(self.filler[index], leaves), siblings=beside(garbage, leaves)
        )


class NamesWhenAsked(Keeper):
    """Keeps garbage in a sector. When that is drawn it says nothing, until it has named it as a slot.

    The ticket is one that it signed itself for that very garbage, so that no root changes. Hopes that a
    refused ticket costs less than a fraud.
    """

    def turn(self, index: int) -> None:
        self.disk[index] = shard_bytes(99, 1024)
        self.refuse_audits = True

    def name_it(self, index: int) -> None:
        self.slots[index] = self.ticket(99, signer=NOBODY)
        self.refuse_audits = False


class StopsNaming(Keeper):
    """Keeps a slot after its ticket has ended, and does not name it any more. Hopes that nobody remembers."""

    def turn(self, index: int) -> None:
        self.put(index, self.ticket(1))

    def hide(self) -> None:
        self.slots.clear()


class OldCommitmentOnly(Keeper):
    """Takes a shard, commits to it, and drops it: it keeps the filler that it had before.

    It answers about the commitment before, and refuses the newest. Hopes that the one before will do.
    """

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        if commitment.seq > 1:
            raise RequestError("unready", "just a moment")
        return await super().honest(commitment, message)


class OldDisk(Keeper):
    """Restores its disk from before it took a shard, under the commitment from after it.

    Hopes that the bytes of the one sector will not be asked for.
    """

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        lost = {root: self._versions[root] for _, root in self.listed}
        try:
            self._versions.update({root: self.filler[index] for index, root in self.listed})
            return await super().honest(commitment, message)
        finally:
            self._versions.update(lost)


class EndlessSlots(Keeper):
    """Keeps everything, and names slots without end. Hopes to fill the validator's memory and its round."""

    def __init__(self, name: str, indices: range) -> None:
        super().__init__(name, indices)
        self.pages = 0

    async def _slots(self, call: Call) -> Reply:
        self.pages += 1
        start = call.number("from", 0)
        ticket = self.ticket(1).encode()
        page = [SlotMessage(sector=start + n, chunk=0, ticket=ticket) for n in range(1024)]
        return SlotsPage(slots=page, next=start + 1024)


class Inflated(Keeper):
    """Keeps nothing: its sectors are shards of a validator that it colludes with, made again when asked for.

    That validator may sign for half of what a miner has. So it claims ten times as many sectors that are
    zeros. Hopes that the half of all that is all it had.
    """

    def turn(self) -> None:
        for index in list(self.disk):
            self.put(index, self.ticket(index + 1, signer=COLLUDER))
        for index in range(len(self.disk), 11 * len(self.disk)):
            self.disk[index] = bytes(seal.DEV.size)
            self.filler[index] = bytes(seal.DEV.size)


def signed_by_colluder(miner: Keeper, serial: int) -> SignedTicket:
    return miner.ticket(serial, signer=COLLUDER)
