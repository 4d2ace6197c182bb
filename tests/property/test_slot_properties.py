"""What holds of slots: which changes of a sector are only shards for filler, and which tickets are good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tensorage import merkle, shard
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.commitment import first_commitment, sector_root
from tensorage.displaced import Sealed, compare, decode_slots, encode_slots, is_for, root_with, siblings
from tensorage.encoding import sha256, u64
from tensorage.errors import ProofError
from tensorage.receipts import Verdict
from tensorage.ticket import SignedTicket, Ticket
from tensorage.validator import rows, slots
from tensorage.validator.slots import Change, Facts, Slot, Transition

GENESIS, MINER = sha256(b"genesis"), sha256(b"miner")
SIGNER = Hotkey.from_uri("//Signer")
NOW = 1_800_000_000
CHUNKS = 4
NODES = 64


def nodes_of(name: str) -> list[bytes]:
    """The 64 nodes over 16 leaves of a chunk that has no bytes."""
    return [sha256(name.encode() + u64(number)) for number in range(NODES)]


FILLER = [nodes_of(f"filler {chunk}") for chunk in range(CHUNKS)]
SEALED = Sealed(
    tuple(merkle.root(nodes) for nodes in FILLER),
    {chunk: tuple(nodes) for chunk, nodes in enumerate(FILLER)},
)


def ticket(serial: int = 1, leaves: int = 1024, **changes: object) -> Ticket:
    made = Ticket(
        GENESIS,
        7,
        SIGNER.public_key,
        sha256(b"client"),
        MINER,
        sha256(b"shard" + u64(serial)),
        leaves,
        NOW + 1000,
        serial,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def slot(place: tuple[int, int], made: Ticket, **changes: object) -> Slot:
    return replace(Slot(*place, SignedTicket(made, bytes(64))), **changes)  # type: ignore[arg-type]


class Model:
    """A sector as a miner keeps it: filler, and tickets at the front of some chunks."""

    def __init__(self, tickets: dict[int, Ticket]) -> None:
        self.tickets = tickets

    @property
    def roots(self) -> tuple[bytes, ...]:
        return tuple(
            root_with(self.tickets[chunk], nodes) if chunk in self.tickets else merkle.root(nodes)
            for chunk, nodes in enumerate(FILLER)
        )

    def slots(self, *, seen: bool) -> dict[int, Slot]:
        return {
            chunk: slot((0, chunk), made, filler=SEALED.roots[chunk] if seen else None)
            for chunk, made in self.tickets.items()
        }

    def to(self, after: Model) -> Transition:
        changed = {
            chunk: Change(filler_node(chunk, made.leaves), tuple(siblings(FILLER[chunk], made.leaves)))
            for chunk, made in after.tickets.items()
            if self.tickets.get(chunk) != made
        }
        return Transition(self.roots, after.roots, changed)


def filler_node(chunk: int, leaves: int) -> bytes:
    return merkle.root(FILLER[chunk][: leaves // 16])


def checked(before: Model, after: Model, transition: Transition, *, seen: bool = True) -> dict[int, Slot]:
    return slots.check_transition(
        transition,
        sector_root(before.roots),
        sector_root(after.roots),
        before.slots(seen=seen),
        after.slots(seen=False),
    )


leaves = st.sampled_from(shard.SHARD_LEAVES)


@st.composite
def models(draw: st.DrawFn, serials: Iterator[int]) -> Model:
    places = draw(st.sets(st.integers(0, CHUNKS - 1)))
    return Model({chunk: ticket(next(serials), draw(leaves)) for chunk in sorted(places)})


@st.composite
def two_models(draw: st.DrawFn) -> tuple[Model, Model]:
    """A sector before and after: shards come, go, stay, and take each other's place."""
    serials = iter(range(1, 100))
    before, after = draw(models(serials)), draw(models(serials))
    for chunk in draw(st.sets(st.integers(0, CHUNKS - 1))):
        after.tickets.pop(chunk, None)
        if chunk in before.tickets:
            after.tickets[chunk] = before.tickets[chunk]
    return before, after


@given(two_models())
def test_any_change_between_filler_and_shards_is_followed(both):
    before, after = both
    found = checked(before, after, before.to(after))
    assert found == {
        chunk: slot((0, chunk), made, filler=SEALED.roots[chunk]) for chunk, made in after.tickets.items()
    }


@given(two_models(), st.integers(0, CHUNKS - 1), st.integers(0, NODES - 1))
def test_a_change_of_one_leaf_beside_the_slots_is_never_followed(both, chunk, node):
    before, after = both
    assume(chunk not in after.tickets or node * 16 >= after.tickets[chunk].leaves)
    nodes = [*FILLER[chunk][:node], sha256(b"another leaf"), *FILLER[chunk][node + 1 :]]
    made = after.tickets.get(chunk)
    foul = root_with(made, nodes) if made else merkle.root(nodes)
    honest = before.to(after)
    roots = (*honest.after[:chunk], foul, *honest.after[chunk + 1 :])
    changed = dict(honest.changed)
    if made is not None:
        # Its best story: the hashes as they are now lead to the root after, and to none before.
        changed[chunk] = Change(filler_node(chunk, made.leaves), tuple(siblings(nodes, made.leaves)))
    with pytest.raises(ProofError):
        slots.check_transition(
            Transition(honest.before, roots, changed),
            sector_root(honest.before),
            sector_root(roots),
            before.slots(seen=True),
            after.slots(seen=False),
        )


@given(two_models())
def test_roots_that_were_not_committed_are_no_transition(both):
    before, after = both
    honest = before.to(after)
    other = Model({chunk: ticket(500 + chunk) for chunk in range(CHUNKS)})
    for transition in (replace(honest, before=other.roots), replace(honest, after=other.roots)):
        with pytest.raises(ProofError, match="do not lead"):
            checked(before, after, transition)


@given(leaves, leaves)
def test_without_the_filler_seen_before_a_shard_is_followed_only_by_one_that_covers_it(first, second):
    before, after = Model({0: ticket(1, first)}), Model({0: ticket(2, second)})
    beside = tuple(siblings(FILLER[0], second))
    if first <= second:
        nodes = [before.tickets[0].shard_root]
        for sibling in siblings(FILLER[0], first)[: second.bit_length() - first.bit_length()]:
            nodes = [merkle.node_hash(nodes[0], sibling)]
        transition = Transition(before.roots, after.roots, {0: Change(nodes[0], beside)})
        found = checked(before, after, transition, seen=False)
        assert found[0].filler is None
    else:
        with pytest.raises(ProofError, match="what stood there"):
            checked(before, after, before.to(after), seen=False)
    with pytest.raises(ProofError, match="neither a named slot nor the filler"):
        checked(before, Model({}), before.to(Model({})), seen=False)


@given(st.dictionaries(st.integers(0, CHUNKS - 1), leaves), st.sets(st.integers(0, CHUNKS - 1)))
def test_an_audit_finds_every_chunk_that_is_neither_filler_nor_its_ticket(sizes, foul):
    model = Model({chunk: ticket(chunk + 1, size) for chunk, size in sizes.items()})
    roots = [sha256(b"foul") if chunk in foul else root for chunk, root in enumerate(model.roots)]
    found = compare(roots, SEALED, model.tickets)
    assert found.false == tuple(sorted(foul))
    assert found.held == tuple(sorted(set(model.tickets) - foul))
    attempt = slots.audited(3, roots, SEALED, model.slots(seen=False))
    assert attempt.verdict is (Verdict.WRONG if foul else Verdict.PASSED)


def test_an_audit_refuses_credit_for_a_ticket_that_is_not_good_and_calls_it_no_fraud():
    model = Model({1: ticket(5)})
    bad = {1: slot((3, 1), model.tickets[1], flaw="ticket 5 is for another miner")}
    attempt = slots.audited(3, model.roots, SEALED, bad)
    assert (attempt.verdict, attempt.kind) == (Verdict.REFUSED, slots.REFUSED_KIND)
    assert "chunk 1 of sector 3: ticket 5 is for another miner" in attempt.reason
    roots = [sha256(b"foul"), *model.roots[1:]]  # a flaw elsewhere does not cover for a fraud
    assert slots.audited(3, roots, SEALED, bad).verdict is Verdict.WRONG


def facts(chunks: int = 20, now: int = NOW, **stakes: float) -> Facts:
    held = {SIGNER.public_key if name == "signer" else sha256(name.encode()): s for name, s in stakes.items()}
    return Facts(GENESIS, 7, MINER, chunks, held, now)


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({}, ""),
        ({"miner": sha256(b"other")}, "for another miner"),
        ({"genesis": sha256(b"other")}, "another chain or subnet"),
        ({"netuid": 8}, "another chain or subnet"),
        ({"expires": NOW - slots.GRACE_SECONDS}, ""),
        ({"expires": NOW - slots.GRACE_SECONDS - 1}, "has ended 8 days ago"),
        ({"expires": NOW + slots.TERM_SECONDS}, ""),
        ({"expires": NOW + slots.TERM_SECONDS + 1}, "ends in more than 401 days"),
        ({"validator": sha256(b"nobody")}, "no validator permit"),
    ],
)
def test_what_is_wrong_with_a_ticket_is_told(changes, flaw):
    (found,) = slots.judged([slot((0, 0), ticket(**changes))], facts(signer=1.0))
    assert flaw in found.flaw and bool(flaw) == bool(found.flaw)
    assert found.accepted is not bool(flaw)
    assert set(slots.barred([found])) == ({0} if flaw else set())


def test_a_ticket_and_a_serial_take_one_slot():
    one = ticket(1)
    named = [slot((0, 0), one), slot((1, 0), one), slot((2, 0), replace(one, shard_root=sha256(b"x")))]
    found = slots.judged(named, facts(signer=1.0))
    assert [bool(each.flaw) for each in found] == [False, True, True]


@given(
    st.lists(st.booleans(), max_size=60),
    st.floats(0, 1),
    st.integers(1, 60),
    st.booleans(),
)
def test_tickets_never_hold_more_than_the_share_and_what_is_tolerated(accepted, share, chunks, permit):
    named = [slot((n, 0), ticket(n), accepted=was) for n, was in enumerate(accepted)]
    given_facts = facts(chunks, **({"signer": share} if permit else {"other": 1.0}))
    good = [found for found in slots.judged(named, given_facts) if not found.flaw]
    new = [found for found in good if not accepted[found.sector]]
    allowed = given_facts.allowed(SIGNER.public_key)
    assert allowed <= (1.1 * share * chunks + 2.1 if permit else 0)
    assert len(new) <= allowed
    assert len(good) <= allowed + chunks / 10 + 1
    assert len(good) >= min(len(accepted), allowed)
    assert sum(accepted) - sum(accepted[found.sector] for found in good) <= max(
        0, sum(accepted) - allowed - given_facts.held_over
    )


def test_stake_that_moves_from_hotkey_to_hotkey_does_not_buy_a_share_for_each():
    held: list[Slot] = []
    for turn in range(10):  # each time another hotkey has a tenth of the stake, and signs for all it may
        key = sha256(f"hotkey {turn}".encode())
        named = held + [slot((100 * turn + n, 0), ticket(100 * turn + n, validator=key)) for n in range(100)]
        now = Facts(GENESIS, 7, MINER, 1000, {key: 0.1, sha256(b"others"): 0.9}, NOW)
        held = [found for found in slots.judged(named, now) if not found.flaw]
        held = [replace(found, accepted=True) for found in held]
    assert len(held) <= 111 + 101  # not the thousand


@given(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 3)), st.integers(0, 3), max_size=12))
def test_what_is_said_of_a_sector_that_did_not_change_is_not_listened_to(said):
    known = [slot((0, 0), ticket(10)), slot((1, 0), ticket(11)), slot((2, 0), ticket(12), accepted=True)]
    claims = [slot(place, ticket(20 + serial)) for place, serial in said.items()]
    before = {index: sha256(b"root" + u64(index)) for index in range(4)}
    entries = [
        (index, sha256(b"root" + u64(index)) if index < 2 else sha256(b"new" + u64(index)))
        for index in range(5)
    ]
    moved = {2: {3: slot((2, 3), ticket(12))}}
    found = slots.merged(known, claims, before, entries, moved)
    assert [each for each in found if each.sector < 2] == known[:2]
    assert [each for each in found if each.sector == 2] == [slot((2, 3), ticket(12), accepted=True)]
    claimed = sorted((c for c in claims if c.sector in (3, 4)), key=lambda c: c.place)
    assert [each for each in found if each.sector > 2] == claimed


def test_a_ticket_that_its_validator_did_not_sign_names_nothing():
    good = ticket(1)
    signed = SignedTicket(good, SIGNER.sign(good.hash))
    forged = SignedTicket(ticket(2), SIGNER.sign(good.hash))
    claims = [Slot(0, 0, signed), Slot(0, 1, forged), Slot(0, 2, SignedTicket(replace(good, leaves=17), b""))]
    now = facts(signer=1.0)
    assert slots.sound(claims, [], now, verify) == claims[:1]
    checked = [Slot(9, 9, forged, accepted=True), Slot(9, 8, signed)]
    assert slots.sound(claims, checked, now, verify) == claims[:2]  # not checked a second time
    # What cannot be good is not worth the checking, until it can be.
    assert slots.sound(claims, [], facts(other=1.0), verify) == claims
    commitment = first_commitment(GENESIS, 7, MINER, 0, [(0, sha256(b"root"))], 5)
    assert is_for(signed, commitment, verify) and not is_for(forged, commitment, verify)
    assert not is_for(signed, replace(commitment, miner=sha256(b"other")), verify)


def test_forged_tickets_without_end_are_not_checked_without_end():
    asked = []

    def count(key: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return False

    claims = [slot((number, 0), ticket(number)) for number in range(10 * slots.MOST_FORGED)]
    assert slots.sound(claims, [], facts(signer=1.0), count) == []
    assert len(asked) == slots.MOST_FORGED


def test_claims_about_chunks_that_are_not_there_are_dropped():
    claims = [slot(place, ticket(1)) for place in ((0, 0), (0, 4), (1, 3), (2, 0))]
    assert slots.placed(claims, [(0, bytes(32)), (1, bytes(32))], 4) == [claims[0], claims[2]]


@settings(max_examples=30)
@given(st.dictionaries(st.integers(0, 255), leaves, max_size=20))
def test_slots_survive_the_ledger_and_an_export(sizes):
    tickets = {
        chunk: SignedTicket(ticket(chunk, size), sha256(u64(chunk)) * 2) for chunk, size in sizes.items()
    }
    assert decode_slots(encode_slots(tickets)) == tickets
    for chunk, signed in tickets.items():
        kept = Slot(
            2**64 - 1, chunk, signed, sha256(b"f") if chunk % 2 else None, chunk % 3 == 0, "x" * (chunk % 2)
        )
        row = dict(zip(rows.SLOT_COLUMNS, rows.slot_row("hotkey", kept), strict=True))
        assert rows.read_slot(row) == kept
    if tickets:
        encoded = encode_slots(tickets)
        with pytest.raises(ProofError):
            decode_slots(encoded[:-1])
        with pytest.raises(ProofError, match="stands after"):
            decode_slots(encoded + encoded)
