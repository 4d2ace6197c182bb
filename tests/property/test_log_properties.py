"""Commitments and receipts: two kinds of one signed hash chain."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorage import commitment, hashchain, receipts
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.commitment import Commitment, SignedCommitment
from tensorage.encoding import ZERO_HASH
from tensorage.errors import ProofError
from tensorage.hashchain import ChainLinkError, EquivocationError
from tensorage.receipts import NO_SECTOR, Receipt, Verdict

AUTHOR, STRANGER = Hotkey.from_uri("//Alice"), Hotkey.from_uri("//Eve")
HASH = st.binary(min_size=32, max_size=32)
ENTRIES = st.dictionaries(st.integers(0, 2**64 - 2), HASH, max_size=12).map(lambda d: sorted(d.items()))

RECEIPTS = st.builds(
    Receipt,
    genesis=HASH,
    netuid=st.integers(0, 2**16 - 1),
    validator=HASH,
    seq=st.integers(1, 2**64 - 1),
    prev_hash=HASH,
    unix_ms=st.integers(0, 2**64 - 1),
    miner=HASH,
    commitment_hash=HASH,
    block_number=st.integers(0, 2**64 - 1),
    block_hash=HASH,
    round=st.integers(0, 2**32 - 1),
    hops=st.integers(0, 2**32 - 1),
    audited_sector=st.integers(0, NO_SECTOR),
    elapsed_ms=st.integers(0, 2**32 - 1),
    verdict=st.sampled_from(Verdict),
    reason=st.text(max_size=80),
    final_state=HASH,
    evidence_hash=HASH,
)


def history(listings: list[list[commitment.Entry]]) -> list[Commitment]:
    """A miner's chain of commitments to these listings."""
    chain: list[Commitment] = []
    for block, entries in enumerate(listings):
        if chain:
            chain.append(commitment.next_commitment(chain[-1], entries, block))
        else:
            chain.append(commitment.first_commitment(bytes(32), 1, AUTHOR.public_key, 0, entries, block))
    return chain


def signed(chain: list[Commitment]) -> list[tuple[Commitment, bytes]]:
    return [(record, AUTHOR.sign(record.hash)) for record in chain]


@settings(max_examples=30)
@given(st.lists(ENTRIES, min_size=1, max_size=6))
def test_a_chain_that_its_author_wrote_holds(listings):
    chain = history(listings)
    assert hashchain.check_chain(signed(chain), AUTHOR.public_key, verify) == chain[-1]


@settings(max_examples=30)
@given(st.lists(ENTRIES, min_size=2, max_size=6), st.data())
def test_a_chain_with_a_record_removed_moved_or_altered_does_not_hold(listings, data):
    pairs = signed(history(listings))
    at = data.draw(st.integers(0, len(pairs) - 2))
    altered, signature = pairs[at]
    field, value = data.draw(
        st.sampled_from(
            [("block_number", altered.block_number + 1), ("sector_count", 999), ("capacity_root", bytes(32))]
        )
    )
    other = dataclasses.replace(altered, **{field: value})
    for bad in (
        pairs[:at] + pairs[at + 1 :],
        [*pairs[:at], pairs[at + 1], pairs[at], *pairs[at + 2 :]],
        [*pairs[:at], (other, signature), *pairs[at + 1 :]],
        [*pairs[:at], (other, AUTHOR.sign(other.hash)), *pairs[at + 1 :]],
        [*pairs[:at], (altered, STRANGER.sign(altered.hash)), *pairs[at + 1 :]],
    ):
        with pytest.raises(ProofError):
            hashchain.check_chain(bad, AUTHOR.public_key, verify)


def test_two_commitments_with_one_seq_are_an_equivocation_that_names_both():
    [known] = history([[(0, bytes(32))]])
    [other] = history([[(1, bytes(32))]])
    with pytest.raises(EquivocationError) as caught:
        commitment.check_successor(known, other)
    assert (caught.value.first, caught.value.second) == (known, other)


def test_an_older_commitment_and_a_skipped_one_are_no_successors():
    one, two, three = history([[(0, bytes(32))], [(1, bytes(32))], [(2, bytes(32))]])
    commitment.check_successor(one, two)
    commitment.check_successor(two, two)
    for known, new in ((two, one), (one, three)):
        with pytest.raises(ChainLinkError):
            commitment.check_successor(known, new)


@given(ENTRIES, HASH)
def test_a_listing_is_believed_only_if_it_is_the_committed_one(entries, other_root):
    [made] = history([entries])
    commitment.check_listing(made, entries)
    index = 0 if not entries else (entries[-1][0] + 1) % 2**64
    for bad in ([*entries, (index, other_root)], entries[:-1] or [(7, other_root)]):
        with pytest.raises(ProofError):
            commitment.check_listing(made, bad)


def test_the_index_that_means_no_sector_is_no_sector():
    entries = [(3, bytes(32)), (NO_SECTOR, bytes(32))]
    [made] = history([entries])
    with pytest.raises(ProofError, match="reserved"):
        commitment.check_listing(made, entries)


@given(st.integers(2, 50), HASH)
def test_one_sector_listed_many_times_is_refused_though_its_root_fits(times, root):
    from tensorage import merkle

    entries = [(4, root)] * times
    [honest] = history([[(4, root)]])
    forged = dataclasses.replace(
        honest,
        sector_count=times,
        capacity_root=merkle.root([commitment.capacity_leaf(4, root)] * times),
    )
    with pytest.raises(ProofError, match="ascend"):
        commitment.check_listing(forged, entries)


@pytest.mark.parametrize(
    "change",
    [{"seq": 0}, {"seq": 1, "prev_hash": b"\1" * 32}, {"seq": 2, "prev_hash": ZERO_HASH}, {"profile": 9}],
)
def test_a_commitment_that_makes_no_sense_is_refused_though_it_is_signed(change):
    [made] = history([[(0, bytes(32))]])
    bad = dataclasses.replace(made, **change)
    with pytest.raises(ProofError):
        SignedCommitment(bad, AUTHOR.sign(bad.hash)).check(verify)


@given(RECEIPTS)
def test_a_receipt_survives_json(receipt):
    document = receipts.to_json(receipt, bytes(64))
    assert receipts.from_json(document) == (receipt, bytes(64))


@given(RECEIPTS, st.data())
def test_a_receipt_with_any_field_changed_has_another_hash_and_is_refused(receipt, data):
    document = receipts.to_json(receipt, bytes(64))
    name = data.draw(st.sampled_from(sorted(set(document) - {"hash", "signature"})))
    other = receipts.to_json(data.draw(RECEIPTS), bytes(64))[name]
    if other != document[name]:
        with pytest.raises(ProofError):
            receipts.from_json(document | {name: other})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    st.lists,
    max_leaves=3,
)


@given(RECEIPTS, st.data(), JUNK)
def test_a_receipt_of_junk_is_refused_and_nothing_worse(receipt, data, junk):
    document = receipts.to_json(receipt, bytes(64))
    name = data.draw(st.sampled_from(sorted(document)))
    if document[name] != junk or type(document[name]) is not type(junk):
        with pytest.raises(ProofError):
            receipts.from_json(document | {name: junk})


@given(st.text(max_size=1000))
def test_a_reason_is_one_short_printable_line(text):
    reason = receipts.line(text)
    assert len(reason.encode()) <= receipts.MAX_REASON
    assert reason.isprintable()
