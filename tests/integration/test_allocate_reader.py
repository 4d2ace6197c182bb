"""Leaves are opened in one small read, checked before they are served, and prove themselves."""

import os
import random
import shutil
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from allocator_data import ME, fill, flip

from tensorage import challenge
from tensorage.allocator.errors import DamagedSectorError
from tensorage.allocator.reader import Reader
from tensorage.allocator.upkeep import DataDirectory
from tensorage.errors import StorageError
from tensorage.seal import LEAF_SIZE

HOPS = 32


def sign(message: bytes) -> bytes:
    return sha256(message).digest() * 2


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    return key == ME.hotkey and signature == sign(message)


def bytes_read() -> int:
    """Bytes that this thread has asked the system for, from files and pipes alike."""
    counters = Path(f"/proc/self/task/{threading.get_native_id()}/io").read_text()
    return int(counters.split("rchar: ")[1].split()[0])


@pytest.fixture
def data(tmp_path):
    with DataDirectory([tmp_path / "a", tmp_path / "b"], ME) as data:
        fill(data, 5)
        yield data


@pytest.fixture
def reader(data):
    reader = Reader(data.store)
    yield reader
    reader.close()


def test_answers_verify_under_the_newest_two_commitments(data, reader):
    hashes = []
    for sectors in (3, 4, 5):
        fill(data, sectors)
        hashes.append(data.store.commit(sign, sectors).commitment.hash)
        fill(data, 5)
    assert reader.committed(hashes[0]) is None and reader.committed(bytes(32)) is None
    for commitment_hash in hashes[1:]:
        committed = reader.committed(commitment_hash)
        nonce = sha256(commitment_hash).digest()
        answer = challenge.answer(nonce, HOPS, committed.commitment, committed.opening, sign)
        walk = challenge.verify_answer(nonce, HOPS, committed.commitment, answer, verify)
        assert len(walk.leaf_indices) == HOPS


def test_a_hop_reads_64_kib_and_a_row(data, reader):
    committed = reader.committed(data.store.commit(sign, 1).commitment.hash)
    committed.opening(2, 100)  # opens the file and fills SQLite's cache
    draw = random.Random(1)
    for _ in range(20):
        before = bytes_read()
        overhead = bytes_read() - before
        before = bytes_read()
        opening = committed.opening(2, draw.randrange(1024))
        read = bytes_read() - before - overhead
        assert 65536 <= read <= 65536 + 2 * 8192  # SQLite looks at two pages at most
        assert len(opening.leaf) == LEAF_SIZE


@pytest.mark.parametrize("leaf", [0, 17, 1023])
def test_a_damaged_leaf_is_named_quarantined_and_never_served(data, reader, leaf):
    committed = reader.committed(data.store.commit(sign, 1).commitment.hash)
    committed.opening(3, leaf)
    sector = data.store.sector(3)
    flip(sector.path, leaf * LEAF_SIZE + 7)
    with pytest.raises(DamagedSectorError, match=f"{sector.path} has wrong bytes in leaves"):
        committed.opening(3, leaf)
    assert data.store.sector(3).state == "quarantined"
    fill(data, 5)
    assert data.store.sector(3).state == "sealed"
    assert committed.opening(3, leaf).leaf == sector.path.read_bytes()[leaf * LEAF_SIZE :][:LEAF_SIZE]


@pytest.mark.parametrize("damage", ["missing", "pipe", "short", "wrong row"])
def test_every_kind_of_damage_is_found_by_the_read(data, reader, damage):
    committed = reader.committed(data.store.commit(sign, 1).commitment.hash)
    path = data.store.sector(4).path
    if damage in ("missing", "pipe"):
        path.unlink()
        if damage == "pipe":
            os.mkfifo(path)
    elif damage == "short":
        with path.open("r+b") as file:
            file.truncate(1 << 20)
    else:
        data.store.record_sealed(4, data.store.nodes(3)[0])
    with pytest.raises(DamagedSectorError, match="sector 4"):
        committed.opening(4, 900)
    assert data.store.sector(4).state == "quarantined"


def test_a_disk_that_is_away_is_no_damage(data, reader, tmp_path):
    committed = reader.committed(data.store.commit(sign, 1).commitment.hash)
    index = next(sector.index for sector in data.store.sectors() if tmp_path / "b" in sector.path.parents)
    shutil.move(tmp_path / "b", tmp_path / "unmounted")
    with pytest.raises(StorageError, match="is not there") as error:
        committed.opening(index, 5)
    assert not isinstance(error.value, DamagedSectorError)
    assert data.store.sector(index).state == "sealed"


def test_a_file_that_another_process_replaced_is_read_anew(data, reader):
    committed = reader.committed(data.store.commit(sign, 1).commitment.hash)
    path = data.store.sector(1).path
    good = path.read_bytes()
    flip(path, 5000)
    with pytest.raises(DamagedSectorError):
        committed.opening(1, 1)
    committed.opening(1, 500)  # opens the damaged file, where it is whole
    whole = path.with_suffix(".copy")
    whole.write_bytes(good)
    whole.replace(path)
    assert committed.opening(1, 1).leaf == good[LEAF_SIZE : 2 * LEAF_SIZE]
