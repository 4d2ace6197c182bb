"""Clients' shards in place of filler: what an honest miner that takes them keeps, over real sockets."""

from __future__ import annotations

import json

import pytest
from slots_net import Keeper
from validator_net import TEMPO, Subnet, subnet

from tensorage import seal
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.displaced import encode_slots, slots_key
from tensorage.errors import ProofError, RequestError
from tensorage.receipts import NO_SECTOR, Verdict
from tensorage.ticket import SignedTicket
from tensorage.transport.file_messages import Transition
from tensorage.validator import export, slots
from tensorage.validator.audit import STEADY_ROUNDS
from tensorage.validator.changes import REVIEW_ROUNDS

SECTOR = seal.DEV.size
OTHER = Hotkey.from_uri("//OtherSigner")
DAY = 86_400


async def credited(net: Subnet, miner: Keeper) -> None:
    """Rounds until all that it committed to has credit."""
    miner.commit(90)
    for _ in range(3):
        await net.round()
    assert net.of(miner).standing.credited_bytes == len(miner.disk) * SECTOR


async def committed_anew(net: Subnet, miner: Keeper) -> None:
    """A tempo later the miner commits to what it has now, and the validator takes it."""
    net.chain.advance(TEMPO)
    miner.commit(net.chain.height)
    await net.round(audit=False)
    assert net.of(miner).covers(miner.chain[-1].commitment.hash)


async def audit_of(net: Subnet, miner: Keeper, index: int) -> None:
    """Rounds until a sector was audited."""
    before = miner.roots_served.count(index)
    for _ in range(40 * STEADY_ROUNDS):
        await net.round()
        if miner.roots_served.count(index) > before:
            return
    raise AssertionError(f"sector {index} was never drawn")


async def receipts(net: Subnet, miner: Keeper) -> list:
    page, _ = await net.book.run(net.book.ledger.receipts, 0, 1000, miner.key.public_key)
    return [receipt for receipt, _ in page]


@pytest.mark.parametrize("leaves", [16, 256, 1024])
async def test_a_shard_in_place_of_filler_costs_no_credit_and_no_evidence(tmp_path, leaves):
    miner = Keeper("Keeper", range(3))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        sampled = net.of(miner).standing.sampled
        miner.put(1, miner.ticket(1, leaves))
        await committed_anew(net, miner)
        known = net.of(miner)
        assert known.credited == {0, 1, 2}
        assert known.standing.sampled > sampled * 0.98  # what fades in a round, and a challenge more
        assert miner.transitions == [(1, 1)]
        # It was asked about the commitment before in that round, since the new one was too young.
        assert miner.asked[-1].commitment == miner.chain[0].commitment.hash
        await net.round(audit=False)
        assert miner.asked[-1].commitment == miner.chain[1].commitment.hash
        assert set(net.of(miner).counts) == {Verdict.PASSED}
        # And the filler that comes back is believed as well.
        miner.give_back(1)
        await committed_anew(net, miner)
        assert net.of(miner).credited == {0, 1, 2}
        assert await net.book.run(net.book.ledger.slots, miner.key.ss58) == []


async def test_a_sector_with_a_shard_is_audited_by_its_ticket_and_anybody_can_repeat_that(tmp_path):
    miner = Keeper("Keeper", range(1))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        miner.put(0, miner.ticket(1, 64))
        await committed_anew(net, miner)
        await audit_of(net, miner, 0)
        last = (await receipts(net, miner))[-1]
        assert (last.audited_sector, last.verdict) == (0, Verdict.PASSED)
        assert "1 of them with the shards of their tickets" in last.reason
        document = json.loads(json.dumps(export.export(net.book.ledger.path)))
        assert export.check(document, verify).repeated == 1
        with pytest.raises(ProofError, match="says passed, its evidence says wrong"):
            export.check({**document, "slots": {}}, verify)


async def test_a_miner_shows_by_its_ticket_that_a_receipt_of_fraud_is_not_true(tmp_path):
    """Whoever kept the slots from the validator, or whichever validator kept them to itself."""
    miner = Keeper("Keeper", range(1))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        ticket = miner.ticket(1, 64)
        miner.put(0, ticket)
        net.chain.advance(TEMPO)
        signed = miner.commit(net.chain.height)
        miner.named = {}
        for _ in range(2):
            await net.round()
        last = (await receipts(net, miner))[-1]
        assert (last.audited_sector, last.verdict) == (0, Verdict.WRONG)
        document = json.loads(json.dumps(export.export(net.book.ledger.path)))
        assert export.check(document, verify).repeated == 1
        key = slots_key(signed.commitment.hash, 0).hex()
        document["slots"][key] = encode_slots({0: ticket}).hex()
        with pytest.raises(ProofError, match="says wrong, its evidence says passed"):
            export.check(document, verify)
        forged = SignedTicket(ticket.ticket, miner.key.sign(ticket.ticket.hash))
        document["slots"][key] = encode_slots({0: forged}).hex()
        assert export.check(document, verify).repeated == 1


async def test_a_validator_that_comes_later_finds_the_slots_and_learns_the_filler(tmp_path):
    miner = Keeper("Keeper", range(2))
    miner.put(0, miner.ticket(1, 1024))
    miner.put(1, miner.ticket(2, 16))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        assert miner.transitions == []
        for index in (0, 1):
            await audit_of(net, miner, index)
        known = await net.book.run(net.book.ledger.slots, miner.key.ss58)
        assert [slot.filler for slot in known] == [
            seal.chunk_roots(seal.Sealer(seal.DEV), seal_id(miner, index))[0] for index in (0, 1)
        ]
    async with subnet(tmp_path, miner) as net:  # another process goes on with it
        net.chain.height = 10_000
        miner.give_back(0)
        await committed_anew(net, miner)
        assert net.of(miner).credited == {0, 1}


def seal_id(miner: Keeper, index: int) -> bytes:
    commitment = miner.chain[0].commitment
    return seal.sector_id(commitment.genesis, commitment.netuid, commitment.miner, seal.DEV, index)


async def test_what_cannot_be_shown_to_be_slots_only_waits_for_an_audit(tmp_path):
    """It names the slot, and does not know any more how the sector came about."""
    miner = Keeper("Keeper", range(3))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        miner.put(1, miner.ticket(1, 16))
        miner.commit(net.chain.height)
        miner._roots.pop(1)  # the commitment before
        net.chain.advance(TEMPO)
        await net.round(audit=False)
        known = net.of(miner)
        assert (known.credited, known.pending) == ({0, 2}, [1])
        for _ in range(3):
            await net.round()
        assert net.of(miner).credited == {0, 1, 2}
        assert set(net.of(miner).counts) == {Verdict.PASSED}


async def test_a_busy_miner_is_asked_again_instead_of_losing_credit(tmp_path):
    miner = Keeper("Keeper", range(2))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        miner.put(1, miner.ticket(1, 16))
        miner.commit(net.chain.height)
        net.chain.advance(TEMPO)

        def busy(*_: object) -> Transition:
            raise RequestError("unready", "just a moment")

        miner.transition = busy
        await net.round(audit=False)
        assert net.of(miner).covers(miner.chain[0].commitment.hash)
        del miner.transition
        await net.round(audit=False)
        assert net.of(miner).covers(miner.chain[1].commitment.hash)
        assert net.of(miner).credited == {0, 1}


async def test_an_audit_drawn_before_the_miner_committed_anew_is_of_what_it_was_drawn_from(tmp_path):
    miner = Keeper("Keeper", range(1))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        miner.put(0, miner.ticket(1, 16))
        miner.commit(net.chain.height)  # within the tempo: it is not taken yet
        for _ in range(STEADY_ROUNDS):
            await net.round(blocks=0)
        assert net.of(miner).covers(miner.chain[0].commitment.hash)
        found = await receipts(net, miner)
        assert [r.verdict for r in found if r.audited_sector != NO_SECTOR] == [Verdict.PASSED] * 2
        assert (0, 1) in miner.transitions


async def test_a_ticket_stays_good_when_its_validator_loses_its_permit_and_ends_with_its_time(tmp_path):
    miner = Keeper("Keeper", range(4))
    async with subnet(tmp_path, miner) as net:
        net.chain.stakes[OTHER] = 1000.0
        await credited(net, miner)
        miner.put(1, miner.ticket(1, 16, OTHER))
        await committed_anew(net, miner)
        del net.chain.stakes[OTHER]
        miner.put(2, miner.ticket(2, 16))
        await committed_anew(net, miner)
        assert net.of(miner).credited == {0, 1, 2, 3}
        net.chain.unix = miner.slots[1].ticket.expires + slots.GRACE_SECONDS
        await net.round()
        assert net.of(miner).credited == {0, 1, 2, 3}
        net.chain.unix += 1
        await net.round()
        known = net.of(miner)
        assert (known.credited, known.barred) == ({0, 3}, {1, 2})
        last = next(r for r in reversed(await receipts(net, miner)) if r.verdict is Verdict.REFUSED)
        assert "no credit for 2 sectors: chunk 0 of sector 1: ticket 1 has ended 8 days ago" in last.reason
        await net.round()
        assert net.of(miner).counts[Verdict.REFUSED] == 1  # told once
        # It seals them again, late: they wait for an audit like anything new.
        for index in (1, 2):
            miner.give_back(index)
        await committed_anew(net, miner)
        assert (net.of(miner).barred, net.of(miner).pending) == (set(), [1, 2])
        for _ in range(2):
            await net.round()
        assert net.of(miner).credited == {0, 1, 2, 3}


async def test_a_sector_gets_its_chance_when_the_validator_of_its_ticket_gets_a_permit(tmp_path):
    miner = Keeper("Keeper", range(3))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        miner.put(1, miner.ticket(1, 16, OTHER))
        await committed_anew(net, miner)
        assert net.of(miner).barred == {1}
        net.chain.stakes[OTHER] = 1000.0
        for _ in range(REVIEW_ROUNDS + 2):
            await net.round()
        assert (net.of(miner).barred, net.of(miner).credited) == (set(), {0, 1, 2})


async def test_a_forged_ticket_is_not_believed_either_when_its_validator_gets_a_permit(tmp_path):
    """As long as nothing could come of it, its signature was not looked at."""
    miner = Keeper("Keeper", range(3))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        signed = miner.ticket(1, 16, OTHER)
        miner.put(1, SignedTicket(signed.ticket, miner.key.sign(signed.ticket.hash)))
        await committed_anew(net, miner)
        assert net.of(miner).barred == {1}
        net.chain.stakes[OTHER] = 1000.0
        for _ in range(REVIEW_ROUNDS + 2):
            await net.round()
        assert net.of(miner).standing.credited_bytes == 0
        assert "nor" not in net.of(miner).reason and "not the sealed ones" in net.of(miner).reason


async def test_what_is_known_of_slots_survives_a_restart(tmp_path):
    miner = Keeper("Keeper", range(3))
    async with subnet(tmp_path, miner) as net:
        await credited(net, miner)
        miner.put(0, miner.ticket(1, 16))
        miner.put(1, miner.ticket(2, 16, OTHER))
        await committed_anew(net, miner)
        before, found = net.of(miner), await net.book.run(net.book.ledger.slots, miner.key.ss58)
        assert before.barred == {1}
    async with subnet(tmp_path, miner) as net:
        assert net.of(miner) == before
        assert await net.book.run(net.book.ledger.slots, miner.key.ss58) == found
        assert await net.book.run(net.book.ledger.slots, miner.key.ss58, 1) == found[1:]
