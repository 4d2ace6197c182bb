"""Chunks and manifests: one file has one digest, however it is cut up, and one bundle has one hash."""

import io
import random
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorage import merkle
from tensorage.dataset.chunks import (
    CHUNK_SIZE,
    Digest,
    Hasher,
    check_leaves,
    chunk_count,
    chunk_span,
    hash_stream,
    split_leaves,
    verify_chunk,
)
from tensorage.dataset.manifest import File, manifest_hash
from tensorage.errors import ProofError

BYTES = random.Random(1).randbytes(6 * CHUNK_SIZE + 77)
SIZES = st.sampled_from([0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 4 * CHUNK_SIZE, len(BYTES)])


def digest_of(data: bytes) -> Digest:
    """What the definition says, a chunk at a time."""
    pieces = [data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)]
    leaves = tuple(sha256(b"\0" + piece).digest() for piece in pieces)
    return Digest(sha256(data).digest(), len(data), leaves)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.lists(st.integers(1, 3 * CHUNK_SIZE), min_size=1, max_size=12))
def test_a_file_hashes_to_the_same_however_it_is_cut_up(size, cuts):
    data = BYTES[:size]
    hasher = Hasher()
    at = turn = 0
    while at < size:
        step = cuts[turn % len(cuts)] if turn < 200 else size
        hasher.update(memoryview(data)[at : at + step])
        at, turn = at + step, turn + 1
    assert hasher.finish() == digest_of(data) == hash_stream(io.BytesIO(data).read)


@settings(max_examples=20, deadline=None)
@given(SIZES, st.data())
def test_each_chunk_is_checked_on_its_own_and_no_other_bytes_pass(size, data):
    digest = digest_of(BYTES[:size])
    leaves = split_leaves(b"".join(digest.leaves))
    assert leaves == digest.leaves and len(leaves) == chunk_count(size)
    check_leaves(leaves, size, digest.chunk_root)
    for index in range(chunk_count(size)):
        begin, end = chunk_span(index, size)
        verify_chunk(leaves, index, BYTES[begin:end])
        flipped = bytearray(BYTES[begin:end])
        flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1
        for wrong in (bytes(flipped), BYTES[begin : end - 1], BYTES[begin:end] + b"\0", b""):
            with pytest.raises(ProofError):
                verify_chunk(leaves, index, wrong)
    for index in (-1, chunk_count(size)):
        with pytest.raises(ProofError):
            verify_chunk(leaves, index, b"")
        with pytest.raises(IndexError):
            chunk_span(index, size)


def test_a_list_of_leaves_that_is_not_the_signed_one_is_refused():
    digest = digest_of(BYTES)
    leaves, root = digest.leaves, digest.chunk_root
    node = merkle.node_hash(leaves[0], leaves[1])
    for wrong, size in (
        (leaves[:-1], len(BYTES)),
        ((*leaves, leaves[0]), len(BYTES)),
        ((leaves[1], leaves[0], *leaves[2:]), len(BYTES)),
        ((b"", *leaves[1:]), len(BYTES)),
        ((node, *leaves[2:]), len(BYTES) - CHUNK_SIZE),
        ((), 0),
    ):
        with pytest.raises(ProofError):
            check_leaves(wrong, size, root)
    with pytest.raises(ProofError):
        split_leaves(bytes(33))


def test_a_file_of_no_bytes_has_no_chunks_and_the_root_of_none():
    empty = Hasher().finish()
    assert empty == Digest(sha256().digest(), 0, ()) and empty.chunk_root == sha256().digest()
    check_leaves((), 0, empty.chunk_root)


def test_a_stream_that_does_not_end_is_cut_off():
    with pytest.raises(ProofError, match="more than 5000000 bytes"):
        hash_stream(bytes, limit=5_000_000)


FILES = st.lists(
    st.builds(
        File,
        name=st.text(st.characters(categories=["L", "N", "S", "Mn"]), min_size=1, max_size=20),
        size=st.integers(0, 2**53 - 1),
        sha256=st.binary(min_size=32, max_size=32),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda file: file.name,
)


@settings(max_examples=50)
@given(FILES, st.randoms())
def test_a_bundle_has_one_hash_in_whatever_order_and_another_when_anything_differs(files, rng):
    true = manifest_hash(files)
    shuffled = list(files)
    rng.shuffle(shuffled)
    assert manifest_hash(shuffled) == true
    first = files[0]
    for other in (
        File(first.name + "x", first.size, first.sha256),
        File(first.name, first.size ^ 1, first.sha256),
        File(first.name, first.size, bytes([first.sha256[0] ^ 1]) + first.sha256[1:]),
    ):
        if other.name not in {file.name for file in files[1:]}:
            assert manifest_hash([other, *files[1:]]) != true
    with pytest.raises(ProofError, match="name"):
        manifest_hash([*files, first])


def test_the_manifest_hash_is_that_of_the_canonical_json():
    files = [File("sft.jsonl", 5, bytes(32)), File("Ärger.md", 0, bytes([255]) * 32)]
    text = (
        '{"files":[{"name":"sft.jsonl","sha256":"' + "00" * 32 + '","size":5},'
        '{"name":"Ärger.md","sha256":"' + "ff" * 32 + '","size":0}]}'
    )
    assert manifest_hash(files) == sha256(text.encode()).digest()


@pytest.mark.parametrize(
    "wrong",
    [
        ("a/b", 1, bytes(32)),
        ("..", 1, bytes(32)),
        ("a\n", 1, bytes(32)),
        ("a", -1, bytes(32)),
        ("a", 2**53, bytes(32)),
        ("a", True, bytes(32)),
        ("a", 1, bytes(31)),
    ],
)
def test_a_file_that_no_manifest_can_have_is_refused(wrong):
    with pytest.raises(ProofError):
        File(*wrong)


def test_an_empty_manifest_is_refused():
    with pytest.raises(ProofError):
        manifest_hash([])
