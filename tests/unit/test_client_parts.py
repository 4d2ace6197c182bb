"""Files that are being fetched, ranges, and the bounded memory of transfers."""

import fcntl
import json
import os
from hashlib import sha256

import anyio
import anyio.lowlevel
import pytest

from tensorage.client import parts
from tensorage.client.get import Span
from tensorage.client.home import BusyError
from tensorage.client.memory import Pool
from tensorage.client.parts import PartFile, WrongDigest
from tensorage.coding.stream import SEGMENT_SIZE
from tensorage.direct import Pages
from tensorage.errors import UsageError

ID = bytes(16)
CONTENT = os.urandom(3 * SEGMENT_SIZE + 5)
DIGEST = sha256(CONTENT).digest()


def part(path, id: bytes = ID, digest: bytes | None = DIGEST) -> PartFile:
    return PartFile(path, id, len(CONTENT), digest)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def interrupted(path, monkeypatch):
    """What is left of a get that ended within its third segment, after two were noted."""
    monkeypatch.setattr(parts, "STEP", SEGMENT_SIZE)
    monkeypatch.setattr(parts, "_BUFFERS", Pages(SEGMENT_SIZE, keep=1))
    with part(path) as file:
        for at in range(2):
            file.write(memoryview(CONTENT)[at * SEGMENT_SIZE : (at + 1) * SEGMENT_SIZE])
            file._settle()
        file.write(memoryview(CONTENT)[2 * SEGMENT_SIZE : 2 * SEGMENT_SIZE + 100])
        file._settle()
    return path


def test_a_file_has_its_name_when_all_of_it_is_there(path):
    with part(path) as file:
        file.write(memoryview(CONTENT))
        file.check()
        assert not path.exists()
        file.finish()
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_it_goes_on_behind_what_is_on_the_disk_for_sure(interrupted):
    with part(interrupted) as file:
        assert file.at == 2 * SEGMENT_SIZE
        file.write(memoryview(CONTENT)[file.at :])
        file.check()
        file.finish()
    assert interrupted.read_bytes() == CONTENT


def test_what_was_there_and_is_wrong_is_found_at_the_end_and_dropped(interrupted):
    with interrupted.with_name("file.part").open("r+b") as file:
        file.write(bytes([CONTENT[0] ^ 1]))
    with part(interrupted) as file:
        file.write(memoryview(CONTENT)[file.at :])
        with pytest.raises(WrongDigest):
            file.check()
    assert list(interrupted.parent.iterdir()) == []


def test_it_begins_anew_where_another_file_was_begun(interrupted):
    with part(interrupted, id=bytes([1]) * 16) as file:
        assert file.at == 0
    with part(interrupted) as file:
        assert file.at == 0


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b"\xff", json.dumps({"tensorage_part": 1}).encode()])
def test_a_damaged_note_is_worth_nothing(interrupted, note):
    interrupted.with_name("file.part.json").write_bytes(note)
    with part(interrupted) as file:
        assert file.at == 0


def test_a_file_of_somebody_else_is_left_alone(path):
    path.with_name("file.part").write_text("mine")
    with pytest.raises(UsageError, match="not of a get"):
        part(path)
    assert path.with_name("file.part").read_text() == "mine"


def test_two_gets_do_not_write_one_file(path):
    with part(path), pytest.raises(BusyError, match="another process"):
        part(path)


def test_a_get_that_begins_as_another_ends_leaves_the_finished_file_alone(path, monkeypatch):
    first = part(path)
    first.write(memoryview(CONTENT))
    first.check()
    lock = fcntl.flock

    def finish_first(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.finish()
        first.close()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", finish_first)
    with pytest.raises(BusyError, match="just now"):
        part(path)
    assert path.read_bytes() == CONTENT
    assert [left.name for left in path.parent.iterdir()] == ["file"]


def test_a_note_is_not_written_through_a_link(path):
    other = path.with_name("other")
    other.write_text("mine")
    path.with_name("file.part.tmp").symlink_to(other)
    with pytest.raises(UsageError, match="cannot be written"):
        part(path)
    assert other.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "span"), [("0-0", (0, 1)), ("3-", (3, 7)), ("0-99", (0, 10)), ("9-9", (9, 1)), ("0-9", (0, 10))]
)
def test_a_range_is_inclusive_and_ends_with_the_file(text, span):
    assert Span.parse(text, 10) == Span(*span)


@pytest.mark.parametrize(
    "text", ["10-", "5-4", "-5", "a-b", "1", "", "1-2-3", "0x1-2", "٣-٤", "1-" + "9" * 19]
)
def test_a_range_that_is_none_of_the_file_is_refused(text):
    with pytest.raises(UsageError):
        Span.parse(text, 10)


async def test_a_pool_gives_in_turn_and_never_more_than_it_has():
    pool = Pool(4096, 3)
    first = await pool.take(2)
    order = []

    async def take(count: int) -> None:
        buffers = await pool.take(count)
        order.append(count)
        pool.give(buffers)

    async with anyio.create_task_group() as group:
        group.start_soon(take, 3)
        await anyio.lowlevel.checkpoint()
        group.start_soon(take, 1)
        await anyio.sleep(0.01)
        assert order == []  # one is free, but it is not this one's turn
        pool.give(first)
    assert order == [3, 1]
    with pytest.raises(ValueError, match="4 buffers of 3"):
        await pool.take(4)


async def test_one_that_gives_up_waiting_does_not_hold_up_the_others():
    pool = Pool(4096, 2)
    held = await pool.take(1)
    with anyio.move_on_after(0.01) as scope:
        await pool.take(2)
    assert scope.cancelled_caught
    with anyio.fail_after(5):
        pool.give(await pool.take(1))
    pool.give(held)
    with anyio.fail_after(5):
        assert len(await pool.take(2)) == 2
