"""Shards: pieces, walks, and the chunk whose front a shard takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage import merkle, seal, shard
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.encoding import sha256, u64
from tensorage.errors import ProofError

MINER = Hotkey.from_uri("//M1")
LEAVES = 64
DATA = b"".join(number.to_bytes(2, "big") * (seal.LEAF_SIZE // 2) for number in range(LEAVES))
HASHES = merkle.leaf_hashes(DATA, seal.LEAF_SIZE)
TREE = merkle.levels(HASHES)
ROOT = shard.shard_root(DATA)


def piece(first: int, count: int) -> bytes:
    """An answer as a miner makes it."""
    height = count.bit_length() - 1
    path = merkle.path_in(TREE[height:], first // count)
    return b"".join(path) + DATA[first * seal.LEAF_SIZE : (first + count) * seal.LEAF_SIZE]


def read(index: int) -> tuple[bytes, list[bytes]]:
    return DATA[index * seal.LEAF_SIZE : (index + 1) * seal.LEAF_SIZE], merkle.path_in(TREE, index)


runs = st.integers(0, 6).flatmap(
    lambda power: st.integers(0, (LEAVES >> power) - 1).map(lambda at: (at << power, 1 << power))
)


@given(runs)
def test_every_aligned_piece_leads_to_the_root_and_gives_its_own_bytes(run):
    first, count = run
    data = shard.read_piece(ROOT, LEAVES, first, count, piece(first, count))
    assert data == DATA[first * seal.LEAF_SIZE : (first + count) * seal.LEAF_SIZE]


@given(runs, st.data())
def test_a_piece_with_any_bit_flipped_is_refused(run, data):
    answer = bytearray(piece(*run))
    answer[data.draw(st.integers(0, len(answer) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ProofError):
        shard.read_piece(ROOT, LEAVES, *run, bytes(answer))


@given(runs, runs)
def test_the_bytes_of_one_place_are_refused_at_another(asked, given_):
    if asked == given_:
        return
    with pytest.raises(ProofError):
        shard.read_piece(ROOT, LEAVES, *asked, piece(*given_))


@pytest.mark.parametrize(("first", "count"), [(0, 3), (1, 2), (0, 0), (-1, 1), (64, 1), (0, 128)])
def test_what_is_no_aligned_run_is_no_piece(first, count):
    with pytest.raises(ProofError, match="no piece"):
        shard.check_piece(LEAVES, first, count)


@pytest.mark.parametrize("leaves", [0, 1, 8, 17, 1000, 2048])
def test_a_shard_of_another_size_is_refused(leaves):
    with pytest.raises(ProofError, match="power of two"):
        shard.shard_root(bytes(leaves * seal.LEAF_SIZE))


@given(st.sampled_from(shard.SHARD_LEAVES), st.integers(0, 2**64 - 1))
def test_the_root_of_a_chunk_follows_from_the_shard_at_its_front_and_the_filler_behind(leaves, seed):
    hashes = [sha256(u64(seed) + u64(number)) for number in range(seal.LEAVES_PER_CHUNK)]
    height = leaves.bit_length() - 1
    siblings = merkle.path_in(merkle.levels(hashes)[height:], 0)
    assert shard.chunk_root(merkle.root(hashes[:leaves]), leaves, siblings) == merkle.root(hashes)
    if siblings:
        with pytest.raises(ProofError):
            shard.chunk_root(merkle.root(hashes[:leaves]), leaves, siblings[1:])


@given(st.binary(min_size=32, max_size=32), st.integers(1, 16))
def test_an_honest_walk_verifies_and_another_question_does_not_fit_it(salt, hops):
    asked = shard.nonce(salt, bytes(32), MINER.public_key, bytes(32))
    answer = shard.answer(asked, hops, LEAVES, read, MINER.sign)
    assert len(answer) == shard.answer_size(LEAVES, hops)
    walk = shard.verify_answer(asked, hops, ROOT, LEAVES, MINER.public_key, answer, verify)
    assert len(walk.leaf_indices) == hops
    other = shard.nonce(salt, b"\1" + bytes(31), MINER.public_key, bytes(32))
    with pytest.raises(ProofError):
        shard.verify_answer(other, hops, ROOT, LEAVES, MINER.public_key, answer, verify)


@given(st.data())
def test_a_walk_that_was_altered_cut_or_lengthened_is_refused(data):
    asked = shard.nonce(bytes(32), bytes(32), MINER.public_key, bytes(32))
    answer = bytearray(shard.answer(asked, 3, LEAVES, read, MINER.sign))
    how = data.draw(st.sampled_from(["flip", "cut", "lengthen"]))
    if how == "flip":
        answer[data.draw(st.integers(0, len(answer) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del answer[data.draw(st.integers(0, len(answer) - 1)) :]
    else:
        answer += b"\0"
    with pytest.raises(ProofError):
        shard.verify_answer(asked, 3, ROOT, LEAVES, MINER.public_key, bytes(answer), verify)
