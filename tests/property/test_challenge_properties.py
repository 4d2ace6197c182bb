"""The chained challenge: right answers verify, and no other bytes do."""

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorage import challenge, commitment, merkle, seal
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.challenge import Challenge, Opening, WrongAnswerError
from tensorage.errors import ProofError

MINER, STRANGER, VALIDATOR = (Hotkey.from_uri(uri) for uri in ("//Alice", "//Eve", "//Bob"))
GENESIS = bytes(range(32))
HOPS = 6


@lru_cache
def leaves_of(index: int) -> list[bytes]:
    """The leaves of a sealed dev sector of MINER."""
    sealer = seal.Sealer(seal.DEV)
    data = sealer.seal(seal.sector_id(GENESIS, 7, MINER.public_key, seal.DEV, index))
    return [bytes(data[at : at + seal.LEAF_SIZE]) for at in range(0, len(data), seal.LEAF_SIZE)]


@lru_cache
def hashes_of(index: int) -> list[bytes]:
    return [merkle.leaf_hash(leaf) for leaf in leaves_of(index)]


class Disk:
    """Sectors in memory, and the openings that an honest miner reads from them."""

    def __init__(self, indices: tuple[int, ...]) -> None:
        self.entries = [(index, merkle.root(hashes_of(index))) for index in sorted(indices)]
        self.commitment = commitment.first_commitment(
            GENESIS, 7, MINER.public_key, seal.DEV.number, self.entries, block_number=10
        )

    def opening(self, entry: int, leaf: int) -> Opening:
        index = self.entries[entry][0]
        capacity = [commitment.capacity_leaf(*each) for each in self.entries]
        return Opening(
            index,
            leaves_of(index)[leaf],
            merkle.path(hashes_of(index), leaf),
            merkle.path(capacity, entry),
        )

    def nonce(self, round: int) -> bytes:
        return Challenge(
            bytes(32), 7, VALIDATOR.public_key, MINER.public_key, self.commitment.hash, round
        ).nonce

    def answer(self, round: int, signer: Hotkey = MINER) -> bytes:
        return challenge.answer(self.nonce(round), HOPS, self.commitment, self.opening, signer.sign)


@lru_cache
def disk(*indices: int) -> Disk:
    return Disk(indices)


SECTORS = st.sets(st.integers(0, 6), min_size=1, max_size=5).map(lambda s: tuple(sorted(s)))
ROUNDS = st.integers(0, 2**32 - 1)


@settings(max_examples=25)
@given(SECTORS, ROUNDS)
def test_an_honest_answer_verifies_and_is_no_longer_than_stated(sectors, round):
    kept = disk(*sectors)
    answer = kept.answer(round)
    walk = challenge.verify_answer(kept.nonce(round), HOPS, kept.commitment, answer, verify)
    assert len(walk.leaf_indices) == HOPS
    assert all(0 <= index < kept.commitment.leaves for index in walk.leaf_indices)
    assert len(answer) <= challenge.max_answer_size(kept.commitment, HOPS)


@settings(max_examples=60)
@given(ROUNDS, st.data())
def test_an_answer_with_any_one_bit_changed_is_wrong(round, data):
    kept = disk(0, 2, 5)
    answer = bytearray(kept.answer(round))
    bit = data.draw(st.integers(0, 8 * len(answer) - 1))
    answer[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProofError):
        challenge.verify_answer(kept.nonce(round), HOPS, kept.commitment, bytes(answer), verify)


@settings(max_examples=40)
@given(st.data())
def test_a_short_or_long_answer_is_wrong(data):
    kept = disk(0, 2, 5)
    answer = kept.answer(3)
    cut = data.draw(st.integers(0, len(answer) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=99))
    for bad in (answer[:cut], answer + extra):
        with pytest.raises(WrongAnswerError):
            challenge.verify_answer(kept.nonce(3), HOPS, kept.commitment, bad, verify)


@settings(max_examples=40)
@given(st.binary(max_size=30_000))
def test_arbitrary_bytes_are_a_wrong_answer_and_nothing_worse(junk):
    kept = disk(0, 2, 5)
    with pytest.raises(WrongAnswerError):
        challenge.verify_answer(kept.nonce(3), HOPS, kept.commitment, junk, verify)


def test_an_answer_to_another_round_is_wrong():
    kept = disk(0, 2, 5)
    with pytest.raises(WrongAnswerError):
        challenge.verify_answer(kept.nonce(2), HOPS, kept.commitment, kept.answer(1), verify)


def test_an_answer_signed_by_another_key_is_wrong():
    kept = disk(0, 2, 5)
    with pytest.raises(WrongAnswerError, match="signed"):
        challenge.verify_answer(kept.nonce(1), HOPS, kept.commitment, kept.answer(1, STRANGER), verify)


def test_hops_in_another_order_are_wrong():
    kept = disk(0)  # one sector: every hop has the same size
    answer = kept.answer(1)
    size = (len(answer) - 64) // HOPS
    hops = [answer[at : at + size] for at in range(0, size * HOPS, size)]
    for order in ([1, 0, *range(2, HOPS)], [0, 0, *range(2, HOPS)]):
        bad = b"".join(hops[at] for at in order) + answer[-64:]
        with pytest.raises(WrongAnswerError):
            challenge.verify_answer(kept.nonce(1), HOPS, kept.commitment, bad, verify)


def test_how_far_a_wrong_answer_verified_is_told():
    kept = disk(0)
    answer = bytearray(kept.answer(1))
    size = (len(answer) - 64) // HOPS
    answer[2 * size + 100] ^= 1
    with pytest.raises(WrongAnswerError) as caught:
        challenge.verify_answer(kept.nonce(1), HOPS, kept.commitment, bytes(answer), verify)
    assert caught.value.verified == 2


def test_a_commitment_to_nothing_proves_nothing():
    empty = commitment.first_commitment(GENESIS, 7, MINER.public_key, 0, [], block_number=1)
    signature = MINER.sign(challenge.response_hash(bytes(32), bytes(32)))
    with pytest.raises(WrongAnswerError, match="no sector"):
        challenge.verify_answer(bytes(32), HOPS, empty, signature, verify)
