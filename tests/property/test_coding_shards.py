"""K of N, the outer layer and the layout, for arbitrary codes, places and sizes."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorage import seal
from tensorage.coding import erasure, spread
from tensorage.coding.layout import full_stripe, stripes, where
from tensorage.errors import ProofError
from tensorage.shard import LEAST_LEAVES, SHARD_LEAVES

SMALLEST = LEAST_LEAVES * seal.LEAF_SIZE
KEY, FILE, MINER = bytes(range(32)), bytes(range(16)), bytes(range(32, 64))

codes = st.integers(1, 12).flatmap(lambda k: st.tuples(st.just(k), st.integers(k, 40)))
sizes = st.one_of(
    st.integers(0, 200 << 20),
    st.integers(0, 1 << 35),
    st.builds(lambda n, d: max(0, n * SMALLEST + d), st.integers(0, 2000), st.integers(-1, 1)),
)


@given(codes, st.integers(1, 64), st.data())
@settings(deadline=None)
def test_any_k_shards_give_the_same_bytes_at_any_columns(code, size, data):
    k, n = code
    blocks = [data.draw(st.binary(min_size=size, max_size=size)) for _ in range(k)]
    shards = dict(enumerate([*blocks, *erasure.encode([memoryview(block) for block in blocks], n)]))
    chosen = data.draw(st.permutations(range(n)))[:k]
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    columns = {number: memoryview(shards[number])[start:end] for number in chosen}
    assert [bytes(b) for b in erasure.decode(k, n, columns)] == [block[start:end] for block in blocks]
    # One parity shard by itself, of some columns, is that of all.
    parity = data.draw(st.integers(k, n))
    if parity < n:
        part = erasure.encode([block[start:end] for block in blocks], n, [parity])
        assert part == [shards[parity][start:end]]


@given(codes, st.data())
@settings(deadline=None)
def test_less_than_k_shards_numbers_out_of_range_and_uneven_blocks_are_refused(code, data):
    k, n = code
    shards = {number: bytes(8) for number in range(n)}
    kept = data.draw(st.permutations(range(n)))
    few = {number: shards[number] for number in kept[: k - 1]}
    with pytest.raises(ProofError):
        erasure.decode(k, n, few)
    for number in (-1, n):
        with pytest.raises(ProofError):
            erasure.decode(k, n, {**few, number: bytes(8)})
    if k > 1:
        with pytest.raises(ProofError):
            erasure.decode(k, n, {**few, kept[k - 1]: bytes(7)})


def test_every_four_of_six_shards_suffice():
    blocks = [bytes([n]) * 16 for n in range(4)]
    shards = [*blocks, *erasure.encode(blocks, 6)]
    for chosen in combinations(range(6), 4):
        assert [bytes(b) for b in erasure.decode(4, 6, {n: shards[n] for n in chosen})] == blocks


@pytest.mark.parametrize(("k", "n"), [(0, 3), (4, 3), (1, 257)])
def test_a_code_that_does_not_exist_is_refused(k, n):
    with pytest.raises(ProofError):
        erasure.check_code(k, n)
    with pytest.raises(ProofError):
        erasure.decode(k, n, {0: b"a"})


def test_a_data_shard_is_not_encoded_as_parity():
    with pytest.raises(ValueError, match="parity"):
        erasure.encode([b"a", b"b"], 3, [1])


@given(st.binary(max_size=200), st.integers(0, 12))
def test_the_layer_comes_off_as_it_was_put_on_at_any_offset(data, blocks):
    place = (KEY, FILE, 3, 7, MINER)
    on = spread.apply(*place, data)
    assert spread.apply(*place, on) == data
    offset = blocks * spread.BLOCK_SIZE
    assert spread.apply(*place, data[offset:], offset) == on[offset:]
    room = bytearray(on)
    spread.apply_into(*place, room, room)
    assert room == data


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 255), st.integers(0, 9)), min_size=2, unique=True)
)
@settings(max_examples=30)
def test_no_two_places_have_the_same_layer(places):
    layers = {spread.apply(KEY, FILE, s, n, bytes([m]) * 32, bytes(32)) for s, n, m in places}
    assert len(layers) == len(places)
    assert spread.apply(KEY, FILE[::-1], *places[0][:2], MINER, bytes(32)) not in layers


def test_the_layer_is_the_one_that_is_written_down():
    # HKDF and CTR by hand, from hmac and single blocks of AES.
    import hmac

    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    info = b"tensorage/spread/v1".ljust(32, b"\0") + FILE + (3).to_bytes(4, "big") + bytes([7]) + MINER
    extracted = hmac.digest(bytes(32), KEY, "sha256")
    key = hmac.digest(extracted, info + b"\1", "sha256")
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    keystream = b"".join(aes.update(n.to_bytes(16, "big")) for n in range(3))
    assert spread.apply(KEY, FILE, 3, 7, MINER, bytes(48)) == keystream


@pytest.mark.parametrize("offset", [-16, 8])
def test_a_keystream_begins_at_a_block(offset):
    with pytest.raises(ValueError, match="multiple"):
        spread.apply(KEY, FILE, 0, 0, MINER, b"", offset)


@given(sizes, st.integers(1, 40))
def test_stripes_follow_each_other_and_hold_the_file_with_little_padding(size, k):
    cut = stripes(size, k)
    at = 0
    for number, stripe in enumerate(cut):
        assert (stripe.number, stripe.offset, stripe.data_shards) == (number, at, k)
        assert stripe.leaves in SHARD_LEAVES and stripe.offset < size
        assert stripe.size <= 40 << 20
        at += stripe.size
    padding = at - size
    assert padding >= 0 and (padding * 100 < size or padding < k * SMALLEST)
    assert [s.leaves for s in cut] == sorted((s.leaves for s in cut), reverse=True)
    assert len(cut) <= size // full_stripe(k) + 6


@given(st.integers(0, 40 << 20), st.integers(1, 5), st.data())
def test_where_a_range_lies_agrees_with_a_walk_over_every_shard(size, k, data):
    cut = stripes(size, k)
    offset = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - offset))
    expected = []
    for stripe in cut:
        for number in range(k):
            start = stripe.offset + number * stripe.shard_size
            first, last = max(start, offset), min(start + stripe.shard_size, offset + length)
            if first < last:
                expected.append((stripe, number, first - start, last - first))
    got = [(e.stripe, e.number, e.offset, e.length) for e in where(cut, offset, length)]
    assert got == expected
    with pytest.raises(ValueError, match="not within"):
        where(cut, sum(stripe.size for stripe in cut), 1)


@given(sizes, st.integers(0, 1 << 30), st.integers(1, 40))
def test_the_full_stripes_are_the_same_whatever_follows(size, more, k):
    full = size // full_stripe(k)
    assert stripes(size, k)[:full] == stripes(size + more, k)[:full]
    assert all(stripe.size == full_stripe(k) for stripe in stripes(size, k)[:full])
