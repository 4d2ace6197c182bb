"""Filling real directories with real worker processes: growth, shrinking, damage, faults, recovery."""

import json
import os
import shutil
import signal
import threading
import time
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from allocator_data import ME, fill, flip, is_sealed

from tensorage import challenge
from tensorage.allocator.errors import SealingStoppedError
from tensorage.allocator.layout import Identity
from tensorage.allocator.plan import Headroom, Target
from tensorage.allocator.reader import Reader
from tensorage.allocator.sealing import Control
from tensorage.allocator.upkeep import DataDirectory
from tensorage.challenge import Challenge
from tensorage.errors import UsageError

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "pos-v1-dev.json").read_text())


@pytest.fixture
def data(tmp_path):
    with DataDirectory([tmp_path / "a", tmp_path / "b"], ME) as data:
        yield data


def children() -> list[int]:
    """Processes that this one has started."""
    lists = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return [int(pid) for pids in lists for pid in pids]


def space_taken(directory: Path) -> int:
    """Bytes on disk under a directory."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*.sector"))


def stamps(data: DataDirectory) -> dict[int, tuple[int, int]]:
    """What changes when a file is written again."""
    return {s.index: (s.path.stat().st_ino, s.path.stat().st_mtime_ns) for s in data.store.sectors("sealed")}


def plan_for(data: DataDirectory, sectors: int) -> None:
    data.apply(data.plan(Target(size=sectors * ME.sectors.size), Headroom(size=0)))


def test_what_is_filled_is_what_the_published_vector_says(tmp_path):
    identity = Identity(
        bytes.fromhex(VECTOR["genesis"]), VECTOR["netuid"], bytes.fromhex(VECTOR["miner"]), VECTOR["profile"]
    )
    with DataDirectory([tmp_path], identity) as data:
        fill(data, len(VECTOR["sectors"]))
        assert [(index, root.hex()) for index, root in data.store.entries()] == [
            (sector["index"], sector["sector_root"]) for sector in VECTOR["sectors"]
        ]
        for sector in VECTOR["sectors"]:
            path = data.store.sector(sector["index"]).path
            assert sha256(path.read_bytes()).hexdigest() == sector["sha256_of_sealed_bytes"]
        signed = data.store.commit(lambda message: message * 2, VECTOR["commitment"]["block"])
        assert signed.commitment.hash.hex() == VECTOR["commitment"]["hash"]
        given = VECTOR["challenge"]
        asked = Challenge(
            bytes.fromhex(given["block_hash"]),
            identity.netuid,
            bytes.fromhex(VECTOR["validator"]),
            identity.hotkey,
            signed.commitment.hash,
            given["round"],
        )
        reader = Reader(data.store)
        committed = reader.committed(signed.commitment.hash)
        answer = challenge.answer(
            asked.nonce, given["hops"], committed.commitment, committed.opening, lambda message: message * 2
        )
        walk = challenge.verify_answer(
            asked.nonce, given["hops"], signed.commitment, answer, lambda key, message, s: s == message * 2
        )
        assert list(walk.leaf_indices) == given["leaf_indices"]
        assert walk.final_state.hex() == given["final_state"]
        reader.close()


def test_growing_keeps_what_is_there_and_shrinking_frees_space(data, tmp_path):
    fill(data, 6)
    before = stamps(data)
    fill(data, 10)
    after = stamps(data)
    assert len(after) == 10 and before.items() <= after.items()
    assert {sector.directory for sector in data.store.sectors()} == set(data.directories)
    taken = space_taken(tmp_path)
    fill(data, 4)
    assert space_taken(tmp_path) == taken - 6 * ME.sectors.size
    assert sorted(stamps(data)) == [0, 1, 2, 3] and stamps(data).items() <= after.items()
    with data.filling():
        assert data.verify() == []


def test_damaged_files_are_named_quarantined_and_sealed_again(data):
    fill(data, 6)
    paths = {index: data.store.sector(index).path for index in (1, 2, 3)}
    flip(paths[1], seed=1)
    paths[2].write_bytes(b"short")
    paths[3].unlink()
    with data.filling():
        found = {damage.sector.index: damage for damage in data.verify()}
        assert {index: damage.sector.path for index, damage in found.items()} == paths
        assert "has 5 bytes" in found[2].why and "No such file" in found[3].why
        assert [sector.state for sector in data.store.sectors()].count("quarantined") == 3
    fill(data, 6)
    assert all(is_sealed(data, sector) for sector in data.store.sectors("sealed"))
    with data.filling():
        assert data.store.counts().sealed == 6 and data.verify() == []


def test_recovery_trusts_neither_a_file_without_a_row_nor_a_row_without_a_file(data):
    fill(data, 5)
    paths = [data.store.sector(index).path for index in range(5)]
    stray = paths[0].with_name(f"{0xFF00:016x}.sector")
    shutil.copy(paths[0], stray)
    unfinished = paths[0].with_name(f"{0xFE00:016x}.sealing")
    unfinished.write_bytes(b"begun")
    foreign = paths[0].with_name("notes.txt")
    foreign.write_text("not ours")
    with paths[1].open("r+b") as file:
        file.truncate(17)
    paths[2].unlink()
    with data.filling():
        found = data.recover()
        assert set(found.removed) == {stray, unfinished}
        assert [sector.index for sector in found.lost] == [2]
        assert [sector.index for sector in found.damaged] == [1]
        assert foreign.exists() and not stray.exists() and not unfinished.exists()
    fill(data, 5)
    assert all(is_sealed(data, sector) for sector in data.store.sectors("sealed"))


def test_a_disk_is_known_wherever_it_is_mounted(tmp_path):
    roots = [tmp_path / "a", tmp_path / "b"]
    with DataDirectory(roots, ME) as data:
        fill(data, 6)
        before = stamps(data)
    shutil.move(tmp_path / "b", tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not mounted"), DataDirectory(roots, ME):
        pass
    shutil.rmtree(tmp_path / "b")
    with DataDirectory([tmp_path / "a", tmp_path / "elsewhere"], ME) as data:
        fill(data, 6)
        assert stamps(data) == before
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "copy")
    with pytest.raises(UsageError, match="one disk"):
        DataDirectory([tmp_path / "a", tmp_path / "elsewhere", tmp_path / "copy"], ME)


@pytest.mark.parametrize("mistake", ["another order", "database lost", "database emptied", "id lost"])
def test_sectors_that_a_database_does_not_know_are_never_taken_for_rubbish(tmp_path, mistake):
    roots = [tmp_path / "a", tmp_path / "b"]
    with DataDirectory(roots, ME) as data:
        fill(data, 6)
        before = stamps(data)
        database = data.store.path
    kept = database.read_bytes()
    if mistake == "another order":
        with pytest.raises(UsageError, match=r"holds sectors .* Name .*a first"):
            DataDirectory(roots[::-1], ME)
    elif mistake == "id lost":
        (database.parent / "disk.id").unlink()
    else:
        database.unlink() if mistake == "database lost" else database.write_bytes(b"")
        with pytest.raises(UsageError, match=r"holds sectors .* delete .*sectors"):
            DataDirectory(roots, ME)
        database.write_bytes(kept)
    with DataDirectory(roots, ME) as data:
        fill(data, 6)
        assert stamps(data) == before


def test_a_disk_that_is_no_longer_named_is_left_alone(tmp_path):
    with DataDirectory([tmp_path / "a", tmp_path / "b"], ME) as data:
        fill(data, 6)
        others = {s.index: s.path for s in data.store.sectors() if s.directory == data.directories[1]}
    with DataDirectory([tmp_path / "a"], ME) as data:
        fill(data, 1)
        assert {s.index: s.path for s in data.store.sectors("sealed")} == others
        shutil.rmtree(tmp_path / "b")
        fill(data, 2)
        assert {s.directory for s in data.store.sectors("sealed")} == set(data.directories)


def test_a_worker_that_dies_loses_nothing_but_its_time(data, caplog):
    killed = []

    def kill_one(progress) -> None:
        if not killed:
            killed.append(children()[0])
            os.kill(killed[0], signal.SIGKILL)

    with data.filling():
        plan_for(data, 30)
        assert data.fill(2, Control(), kill_one)
        assert data.verify() == [] and data.store.counts().sealed == 30
        assert data.recover().removed == ()
    assert "worker died" in caplog.text and "lower --workers" in caplog.text


def test_workers_that_keep_dying_are_given_up(data):
    over = threading.Event()

    def kill_all() -> None:
        while not over.wait(0.02):
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with data.filling():
            plan_for(data, 4)
            with pytest.raises(SealingStoppedError, match="lower --workers"):
                data.fill(2)
    finally:
        over.set()
        killer.join()
    fill(data, 4)
    assert data.store.counts().sealed == 4


def test_paused_workers_stand_still_until_the_last_pause_ends(data):
    control = Control()
    sealed = []

    def watch(progress) -> None:
        sealed.append(time.monotonic())
        if len(sealed) == 5:
            control.pause()
            control.pause()
            threading.Timer(0.5, control.resume).start()
            threading.Timer(1.5, control.resume).start()

    with data.filling():
        plan_for(data, 40)
        assert data.fill(2, control, watch)
    gaps = [after - before for before, after in pairwise(sealed)]
    assert max(gaps) > 1.3 and data.store.counts().sealed == 40


def test_stopping_leaves_what_is_finished_and_nothing_else(data, tmp_path):
    control = Control()

    def stop_early(progress) -> None:
        if data.store.counts().sealed >= 3:
            control.stop()

    with data.filling():
        plan_for(data, 200)
        began = time.monotonic()
        assert not data.fill(2, control, stop_early)
        assert time.monotonic() - began < 8
        sealed = data.store.counts().sealed
        assert 3 <= sealed < 200 and children() == []
        assert not list(tmp_path.rglob("*.sealing"))
        before = stamps(data)
        data.recover()
        assert stamps(data) == before and len(before) == sealed


def test_the_main_profile_is_sealed_verified_and_proven(tmp_path):
    identity = Identity(ME.genesis, ME.netuid, ME.hotkey, 1)
    peaks = []

    def watch(progress) -> None:
        for pid in children():
            status = Path(f"/proc/{pid}/status").read_text()
            peaks.append(int(status.split("VmHWM:")[1].split()[0]) * 1024)

    with DataDirectory([tmp_path], identity) as data, data.filling():
        data.apply(data.plan(Target(size=identity.sectors.size), Headroom(size=0)))
        assert data.fill(1, Control(), watch)
        assert max(peaks) <= 1.15 * identity.sectors.size
        assert data.verify() == []
        signed = data.store.commit(lambda message: message * 2, 1)
        reader = Reader(data.store)
        committed = reader.committed(signed.commitment.hash)
        nonce = sha256(b"nonce").digest()
        answer = challenge.answer(
            nonce, challenge.HOPS, committed.commitment, committed.opening, lambda message: message * 2
        )
        assert len(answer) == challenge.max_answer_size(signed.commitment, challenge.HOPS)
        challenge.verify_answer(
            nonce, challenge.HOPS, signed.commitment, answer, lambda key, message, s: s == message * 2
        )
        path = data.store.sector(0).path
        flip(path, 777 << 20)
        flip(path, 777)
        assert [damage.sector.path for damage in data.verify()] == [path]
        reader.close()
