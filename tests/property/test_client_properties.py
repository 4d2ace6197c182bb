"""Cutting sources into stripes, and planning what to fetch, for files and ranges of any size."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from tensorage import seal, shard
from tensorage.client.plan import FIRST_LEAVES, units
from tensorage.client.reading import Batch, Reader
from tensorage.coding import layout
from tensorage.coding.keys import FileKeys
from tensorage.coding.stream import SEALED_SIZE, SEGMENT_SIZE, Encryptor, ciphertext_size, segment_count

KEY = bytes(range(32))
KEYS = FileKeys.of(KEY)
#: Few data shards make small stripes; 40 make shards of 256 leaves.
SHARDS = st.sampled_from([1, 2, 40])


def around(*points: int, most: int) -> st.SearchStrategy[int]:
    """Sizes near the places where something changes, and others."""
    near = [
        min(most, max(0, point * factor + by))
        for point in points
        for factor in (0, 1, 2)
        for by in range(-2, 3)
    ]
    return st.sampled_from(near) | st.integers(0, most)


def content(size: int) -> bytes:
    return (b"%d tensorage " % size * (size // 8 + 1))[:size]


def read_all(data: bytes, k: int, whole: frozenset[int] = frozenset(), chunk: int = 1 << 30):
    """Every batch, with its ciphertext."""
    stream = io.BytesIO(data)

    def read_into(view: memoryview) -> int:
        got = 0
        while got < len(view) and (piece := stream.read(min(chunk, len(view) - got))):
            view[got : got + len(piece)] = piece
            got += len(piece)
        return got

    reader = Reader(read_into, KEY, KEYS.content, k, whole)
    size = layout.full_leaves(k) * seal.LEAF_SIZE
    found: list[tuple[Batch, list[bytes]]] = []
    while not found or not found[-1][0].last:
        buffers = [memoryview(bytearray(b"\xaa" * size)) for _ in range(k)]
        batch = reader.fill(buffers)
        found.append((batch, [b"".join(cut.shards(buffers, [])) for cut in batch.cuts]))
    return reader, found


@settings(max_examples=25)
@given(SHARDS, st.data())
def test_a_source_is_cut_as_its_size_demands_and_encrypted_in_order(k, data):
    full = layout.full_stripe(k)
    plain = content(data.draw(around(SEGMENT_SIZE, full, full // SEALED_SIZE * SEGMENT_SIZE, most=2 * full)))
    reader, batches = read_all(plain, k, chunk=data.draw(st.sampled_from([1 << 30, 100_003])))
    sealer, count = Encryptor(KEYS.content), segment_count(len(plain))
    wanted = b"".join(
        sealer.segment(n, plain[n * SEGMENT_SIZE : (n + 1) * SEGMENT_SIZE], n == count - 1)
        for n in range(count)
    )
    cuts = [cut for batch, _ in batches for cut in batch.cuts]
    made = b"".join(stripe for _, stripes in batches for stripe in stripes)
    assert [cut.stripe for cut in cuts] == layout.stripes(len(wanted), k)
    assert made[: len(wanted)] == wanted and not any(made[len(wanted) :])
    assert sum(cut.mark.length for cut in cuts) == len(wanted)
    assert (reader.size, reader.ended) == (len(plain), True)


@settings(max_examples=25)
@given(st.data())
def test_a_mark_covers_every_byte_whose_segment_is_in_the_stripe(data):
    k = 1
    size = data.draw(st.integers(1, 3 * layout.full_stripe(k)))
    plain = content(size)
    at = data.draw(st.integers(0, size - 1))
    changed = plain[:at] + bytes([plain[at] ^ 1]) + plain[at + 1 :]
    marks = [cut.mark for batch, _ in read_all(plain, k)[1] for cut in batch.cuts]
    others = [cut.mark for batch, _ in read_all(changed, k)[1] for cut in batch.cuts]
    touched = at // SEGMENT_SIZE * SEALED_SIZE
    ends = 0
    for mark, other in zip(marks, others, strict=True):
        ends += mark.length
        assert (mark == other) == (ends <= touched)


def test_a_longer_source_has_no_mark_of_a_shorter_one_that_ended_in_its_stripe():
    k = 1
    plain = content(3 * SEGMENT_SIZE)
    short = read_all(plain, k)[1][0][0].cuts
    long = read_all(plain + b"more", k)[1][0][0].cuts
    assert not {cut.mark for cut in short} & {cut.mark for cut in long}


def test_stripes_that_are_stored_are_read_and_not_encrypted_and_the_others_are_the_same():
    k = 1
    plain = content(3 * layout.full_stripe(k) + 5)
    first, again = read_all(plain, k)[1], read_all(plain, k, frozenset({0, 2}))[1]
    for number, ((before, made), (after, remade)) in enumerate(zip(first, again, strict=True)):
        assert before.cuts == after.cuts
        assert (made == remade) == (number not in (0, 2))


@given(SHARDS, st.data())
def test_a_plan_covers_exactly_the_range_with_pieces_that_can_be_asked_for(k, data):
    full = layout.full_stripe(k)
    size = data.draw(around(SEGMENT_SIZE, full, most=5 * full))
    total = ciphertext_size(size)
    offset = data.draw(st.integers(0, total - 1))
    length = data.draw(st.integers(1, total - offset) | st.just(total - offset))
    plan = list(units(layout.stripes(total, k), offset, length))
    at = plan[0].offset
    assert at <= offset and offset - at < shard.LEAST_LEAVES * seal.LEAF_SIZE
    for unit in plan:
        assert unit.offset == at
        assert unit.numbers == tuple(range(unit.numbers[0], unit.numbers[0] + len(unit.numbers)))
        shard.check_piece(unit.stripe.leaves, unit.first, unit.count)
        assert len(unit.numbers) == 1 or unit.count == unit.stripe.leaves
        at += unit.size
    assert at >= offset + length
    assert at - (offset + length) < max(shard.LEAST_LEAVES * seal.LEAF_SIZE, plan[-1].size)
    assert plan[0].count <= FIRST_LEAVES
    assert len(plan) <= 24 + 3 * len(layout.stripes(total, k))
