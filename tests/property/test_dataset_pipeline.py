"""The pipeline hashes what chunks.Hasher hashes, and its copy is the file."""

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tensorage.dataset.chunks import CHUNK_SIZE, Hasher
from tensorage.dataset.files import Disk
from tensorage.dataset.pipeline import BLOCK_SIZE, SourceChangedError, copy_file, digest_file, hash_file

sizes = st.one_of(
    st.integers(0, 10_000),
    st.builds(
        lambda blocks, chunks, odd: max(0, blocks * BLOCK_SIZE + chunks * CHUNK_SIZE + odd),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(-4097, 4097),
    ),
)


@given(size=sizes, seed=st.binary(min_size=1, max_size=64), cached=st.booleans())
@example(size=0, seed=b"a", cached=True)
@example(size=7 * BLOCK_SIZE + 1, seed=b"abc", cached=False)
@settings(max_examples=15)
def test_a_copy_is_the_file_and_hashes_as_it(tmp_path_factory, size, seed, cached):
    directory = tmp_path_factory.mktemp("pipeline")
    data = (seed * (size // len(seed) + 1))[:size]
    source, target = directory / "source", directory / "target"
    source.write_bytes(data)
    expected = Hasher()
    expected.update(data)
    told = []
    disk = Disk()
    with source.open("rb+") as file:
        if not cached:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        fd, _ = disk.open_direct(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        digest = copy_file(file.fileno(), size, disk, fd, told.append)
        disk.close(fd)
        assert digest == expected.finish() == digest_file(file.fileno(), size)
        assert hash_file(file.fileno(), size) == digest.sha256
    assert target.read_bytes() == data
    assert sum(told) == size
    source.unlink()
    target.unlink()


def test_a_file_that_ends_before_it_should_is_noticed(tmp_path):
    path = tmp_path / "short"
    for size in (10, 3 * BLOCK_SIZE):
        path.write_bytes(bytes(size - 1))
        with path.open("rb") as file, pytest.raises(SourceChangedError, match=f"ends at byte {size - 1}"):
            digest_file(file.fileno(), size)
