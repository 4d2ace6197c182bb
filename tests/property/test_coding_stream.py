"""The segments of a file, for arbitrary files: they open at their own places, and nowhere else."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tensorage.coding import stream
from tensorage.coding.opening import Opening
from tensorage.coding.stream import SEALED_SIZE, SEGMENT_SIZE, Decryptor, Encryptor, StreamError

KEY = bytes(range(32))
#: Around the ends of segments, where mistakes are; the bytes repeat with no period of a segment.
SIZES = st.one_of(
    st.integers(0, 40),
    st.builds(lambda n, d: max(0, n * SEGMENT_SIZE + d), st.integers(1, 3), st.integers(-17, 17)),
)
BYTES = bytes(i * i % 251 for i in range(251)) * (4 * SEGMENT_SIZE // 251 + 1)


def sealed(plain: bytes, key: bytes = KEY) -> list[bytes]:
    encryptor, count = Encryptor(key), stream.segment_count(len(plain))
    cut = [plain[n * SEGMENT_SIZE : (n + 1) * SEGMENT_SIZE] for n in range(count)]
    return [encryptor.segment(n, part, n == count - 1) for n, part in enumerate(cut)]


def opened(segments: list[bytes], size: int) -> bytes:
    opening = Opening(KEY, size)
    plain = b"".join(bytes(part) for segment in segments for part in opening.feed(segment))
    opening.finish()
    return plain


@given(SIZES)
@settings(max_examples=40, deadline=None)
def test_segments_give_the_file_back_and_have_the_sizes_that_are_told(size):
    plain = BYTES[:size]
    segments = sealed(plain)
    whole = b"".join(segments)
    assert len(whole) == stream.ciphertext_size(size) and stream.plaintext_size(len(whole)) == size
    assert opened(segments, size) == plain
    last = len(segments) - 1
    decryptor = Decryptor(KEY)
    assert b"".join(decryptor.segment(n, s, n == last) for n, s in enumerate(segments)) == plain


@given(SIZES, st.data())
@settings(max_examples=40, deadline=None)
def test_any_range_opens_from_the_run_that_is_named_for_it_in_pieces_of_any_size(size, data):
    plain = BYTES[:size]
    offset = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - offset))
    opening = Opening(KEY, size, offset, length)
    run = opening.run
    part = b"".join(sealed(plain))[run.offset :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(part)), max_size=4)))
    pieces = [part[a:b] for a, b in zip([0, *cuts], [*cuts, len(part)], strict=True)]
    assert (
        b"".join(bytes(p) for piece in pieces for p in opening.feed(piece)) == plain[offset : offset + length]
    )
    opening.finish()
    # The run is no longer than it need be: without its last byte nothing opens to the end.
    again = Opening(KEY, size, offset, length)
    for _ in again.feed(part[: run.length - 1]):
        pass
    with pytest.raises(StreamError):
        again.finish()


@given(SIZES, st.data())
@settings(max_examples=60, deadline=None)
def test_one_flipped_bit_anywhere_is_refused(size, data):
    segments = sealed(BYTES[:size])
    number = data.draw(st.integers(0, len(segments) - 1))
    bit = data.draw(st.integers(0, 8 * len(segments[number]) - 1))
    changed = bytearray(segments[number])
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StreamError):
        opened([*segments[:number], bytes(changed), *segments[number + 1 :]], size)


@given(SIZES.filter(lambda size: size > SEGMENT_SIZE), st.data())
@settings(max_examples=40, deadline=None)
def test_swapped_dropped_repeated_and_appended_segments_are_refused_whatever_size_is_claimed(size, data):
    segments = sealed(BYTES[:size])
    last = len(segments) - 1
    a = data.draw(st.integers(0, last))
    b = data.draw(st.integers(0, last).filter(lambda n: n != a))
    swapped = list(segments)
    swapped[a], swapped[b] = swapped[b], swapped[a]
    dropped = segments[:a] + segments[a + 1 :]
    repeated = [*segments[: a + 1], *segments[a:]]
    for wrong in (swapped, dropped, repeated, [*segments, segments[a]]):
        try:
            claimed = stream.plaintext_size(sum(len(segment) for segment in wrong))
        except ValueError:
            continue
        with pytest.raises(StreamError):
            opened(wrong, claimed)


@given(SIZES, st.data())
@settings(max_examples=40, deadline=None)
def test_a_stream_that_is_cut_anywhere_is_no_stream_of_a_smaller_file(size, data):
    whole = b"".join(sealed(BYTES[:size]))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(StreamError):
        opened([whole[:cut]], size)
    try:
        claimed = stream.plaintext_size(cut)
    except ValueError:
        return
    with pytest.raises(StreamError):
        opened([whole[:cut]], claimed)


@given(SIZES, st.integers(0, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_segment_opens_only_at_its_number_as_what_it_is_and_under_its_key(size, index, last):
    segments = sealed(BYTES[:size])
    segment, number = segments[-1], len(segments) - 1
    assume((index, last) != (number, True))
    with pytest.raises(StreamError):
        Decryptor(KEY).segment(index, segment, last)
    with pytest.raises(StreamError):
        Decryptor(KEY[::-1]).segment(number, segment, True)


@given(SIZES)
@settings(max_examples=20, deadline=None)
def test_writing_into_a_buffer_is_the_same_in_both_directions(size):
    segments = sealed(BYTES[:size])
    last = len(segments) - 1
    for n, segment in enumerate(segments):
        plain = memoryview(BYTES)[n * SEGMENT_SIZE : min(size, (n + 1) * SEGMENT_SIZE)]
        room = bytearray(len(plain) + stream.TAG_SIZE)
        Encryptor(KEY).segment_into(n, plain, n == last, room)
        assert room == segment
        back = bytearray(len(plain))
        Decryptor(KEY).segment_into(n, segment, n == last, back)
        assert back == plain


@pytest.mark.parametrize("size", [SEGMENT_SIZE + 1, SEGMENT_SIZE - 1])
def test_only_the_last_segment_may_be_short_and_none_may_be_long(size):
    with pytest.raises(ValueError, match="only the last"):
        Encryptor(KEY).segment(0, bytes(size), False)


def test_an_empty_file_has_one_segment_that_proves_its_end():
    assert [len(segment) for segment in sealed(b"")] == [stream.TAG_SIZE]
    assert stream.run(0, 0, 0) == stream.Run(0, 1, 0, 16, 0, 0)
    with pytest.raises(StreamError):
        opened([bytes(16)], 0)


@pytest.mark.parametrize("ciphertext", [0, 15, SEALED_SIZE + 15, -1])
def test_a_size_that_no_stream_has_is_refused(ciphertext):
    with pytest.raises(ValueError, match="no whole stream"):
        stream.plaintext_size(ciphertext)
