"""A file from sources that lie, break off, drip and never end: right and whole, or not there at all."""

import asyncio
import json
import os
import random
import socket
import threading
import time

import pytest
from dataset_seller import Seller

from tensorage.dataset.buyer.download import Download
from tensorage.dataset.buyer.faults import DownloadError
from tensorage.dataset.buyer.part import BusyError, Part
from tensorage.dataset.buyer.sources import HttpSource
from tensorage.dataset.buyer.target import Goal, TakenError, check_room, check_target
from tensorage.dataset.buyer.urls import parse
from tensorage.dataset.chunks import CHUNK_SIZE, hash_stream
from tensorage.dataset.files import Disk
from tensorage.errors import ProofError, StorageError, UsageError

TOKEN = "tensorage-member-" + "5" * 64


def made(size, seed=1):
    return random.Random(seed).randbytes(size)


def digest_of(data):
    view = memoryview(data)
    at = iter(range(0, len(data) + CHUNK_SIZE, CHUNK_SIZE))
    return hash_stream(lambda size: bytes(view[(start := next(at)) : start + size]))


class Case:
    """One file, where it goes, and what is known of it."""

    def __init__(self, tmp_path, data, **changed):
        self.data = data
        self.digest = digest_of(data)
        self.out = tmp_path / "d-v1.jsonl"
        goal = {
            "root_owner": "5Owner",
            "id": "d",
            "seq": 1,
            "file_hash": self.digest.sha256,
            "size": len(data),
            "chunk_root": self.digest.chunk_root,
        }
        self.goal = Goal(**{**goal, **changed})

    def run(self, *sources, pauses=(), force=False, **options):
        with Part(self.out, self.goal, Disk(), force=force) as part:
            outcome = Download(part, self.digest.leaves, sources, pauses=pauses, **options).run()
            part.finish(force=force)
        return outcome

    def fails(self, *sources, **options):
        with pytest.raises(DownloadError) as error:
            self.run(*sources, **options)
        assert not self.out.exists()
        return str(error.value)

    @property
    def whole(self):
        return self.out.read_bytes() == self.data and list(self.out.parent.iterdir()) == [self.out]


def source(seller, path="/f", token=None):
    return HttpSource(parse(seller.url + path), token)


@pytest.fixture
def seller():
    with Seller() as running:
        yield running


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 5 * CHUNK_SIZE, 9 * CHUNK_SIZE + 7]
)
def test_a_file_of_any_size_comes_whole_with_each_byte_once(tmp_path, seller, size):
    case = Case(tmp_path, made(size))
    seller.files["/f"] = case.data
    outcome = case.run(source(seller, token=TOKEN))
    assert case.whole
    assert (outcome.kept, outcome.fetched, seller.sent) == (0, size, size)
    assert all(asked.headers["authorization"] == f"Bearer {TOKEN}" for asked in seller.asked)
    assert case.out.stat().st_mode & 0o777 == 0o600


def test_zeros_are_not_taken_for_what_was_never_written(tmp_path, seller):
    case = Case(tmp_path, bytes(3 * CHUNK_SIZE) + made(CHUNK_SIZE) + bytes(100))
    seller.files["/f"] = case.data
    case.run(source(seller))
    assert case.whole


def test_what_is_there_is_not_fetched_again_and_what_was_altered_is(tmp_path, seller):
    case = Case(tmp_path, made(8 * CHUNK_SIZE + 5))
    seller.files["/f"] = case.data

    async def four(asked, writer):
        await seller.answer(
            writer, 206, case.data[: 4 * CHUNK_SIZE + 999], ranged(asked, case), length=len(case.data)
        )

    seller.tricks["/f"] = four
    assert "broke off" in case.fails(source(seller))
    part = case.out.with_name(case.out.name + ".part")
    with part.open("r+b") as file:
        file.seek(2 * CHUNK_SIZE + 17)
        file.write(b"xx")
    del seller.tricks["/f"]
    seller.sent = 0
    outcome = case.run(source(seller))
    assert case.whole
    assert outcome.kept == 3 * CHUNK_SIZE
    assert seller.sent == len(case.data) - 3 * CHUNK_SIZE


def ranged(asked, case):
    start, end = asked.span(len(case.data))
    return [f"Content-Range: bytes {start}-{end - 1}/{len(case.data)}"]


def test_a_part_of_another_version_is_dropped(tmp_path, seller):
    other = Case(tmp_path, made(3 * CHUNK_SIZE, seed=2))
    seller.files["/f"] = other.data[: 2 * CHUNK_SIZE] + bytes(CHUNK_SIZE)
    assert "wrong chunk 2" in other.fails(source(seller))
    case = Case(tmp_path, other.data, seq=2)
    seller.files["/f"] = case.data
    assert case.run(source(seller)).kept == 0
    assert case.whole


def test_a_cut_connection_is_taken_up_with_less_than_a_chunk_twice(tmp_path, seller):
    case = Case(tmp_path, made(6 * CHUNK_SIZE))

    async def cut(asked, writer):
        start, end = asked.span(len(case.data))
        body = case.data[start : min(end, start + CHUNK_SIZE + 70_000)]
        await seller.answer(writer, 206, body, ranged(asked, case), length=end - start)

    seller.tricks["/f"] = cut
    outcome = case.run(source(seller), pauses=(0.01, 0.01))
    assert case.whole
    assert seller.sent == len(case.data) + 5 * 70_000
    assert outcome.sources[0].chunks == 6


LIES = {
    "short": ("where 2097157 are due", lambda asked, case: (206, case.data[:-9], {})),
    "altered": ("wrong chunk 1", lambda asked, case: (206, altered(case.data), {})),
    "of another file": ("wrong chunk 0", lambda asked, case: (206, made(len(case.data), seed=9), {})),
    "with another start": (
        "Content-Range",
        lambda asked, case: (206, case.data, {"Content-Range": "bytes 1-8/9"}),
    ),
    "of another total": (
        "Content-Range",
        lambda asked, case: (
            206,
            case.data,
            {"Content-Range": f"bytes 0-{len(case.data) - 1}/{len(case.data) + 1}"},
        ),
    ),
    "without Content-Range": ("Content-Range", lambda asked, case: (206, case.data, {"Content-Range": None})),
    "longer than signed": ("sends 2097166 bytes", lambda asked, case: (206, case.data + b"x" * 9, {})),
    "gzip": ("gzip", lambda asked, case: (206, case.data, {"Content-Encoding": "gzip"})),
    "redirect": ("not followed", lambda asked, case: (302, b"", {"Location": "http://127.0.0.1:1/"})),
    "gone": ("HTTP 404", lambda asked, case: (404, b"", {})),
    "range refused": ("HTTP 416", lambda asked, case: (416, b"", {})),
    "no content": ("HTTP 204", lambda asked, case: (204, b"", {})),
}


def altered(data):
    changed = bytearray(data)
    changed[CHUNK_SIZE + 3] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_source_is_named_and_the_honest_one_finishes(tmp_path, seller, lie):
    said, answer = LIES[lie]
    case = Case(tmp_path, made(2 * CHUNK_SIZE + 5))

    async def trick(asked, writer):
        status, body, headers = answer(asked, case)
        headers = {"Content-Range": f"bytes 0-{len(case.data) - 1}/{len(case.data)}", **headers}
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        await seller.answer(writer, status, body, lines)

    seller.tricks["/f"] = trick
    assert said in case.fails(source(seller))
    seller.files["/good"] = case.data
    bad, good = case.run(source(seller), source(seller, "/good")).sources
    assert case.whole
    assert not good.fault and (bad.fault or bad.chunks == 0)


def test_a_source_without_ranges_serves_from_the_start_and_is_dropped_further_on(tmp_path, seller):
    case = Case(tmp_path, made(4 * CHUNK_SIZE))

    async def whole(asked, writer):
        await seller.answer(writer, 200, case.data)

    seller.tricks["/f"] = whole
    case.run(source(seller))
    assert case.whole
    case.out.rename(case.out.with_name("d-v1.jsonl.part"))
    with (tmp_path / "d-v1.jsonl.part").open("r+b") as file:
        file.write(bytes(10))
    (tmp_path / "d-v1.jsonl.part.json").write_text(json.dumps(case.goal.sidecar()))
    case.run(source(seller))
    assert case.whole
    case.out.rename(case.out.with_name("d-v1.jsonl.part"))
    with (tmp_path / "d-v1.jsonl.part").open("r+b") as file:
        file.seek(3 * CHUNK_SIZE)
        file.write(bytes(10))
    (tmp_path / "d-v1.jsonl.part.json").write_text(json.dumps(case.goal.sidecar()))
    assert "sends the whole file where a part was asked for" in case.fails(source(seller))


def test_an_endless_body_fills_no_disk(tmp_path, seller):
    case = Case(tmp_path, made(CHUNK_SIZE + 5))

    async def endless(asked, writer):
        writer.write(b"HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\n")
        writer.write(f"Content-Range: bytes 0-{len(case.data) - 1}/{len(case.data)}\r\n\r\n".encode())
        await seller.pour(writer, b"%x\r\n" % len(case.data) + case.data + b"\r\n")
        while True:
            await seller.pour(writer, b"400\r\n" + bytes(1024) + b"\r\n")

    seller.tricks["/f"] = endless
    case.run(source(seller))
    assert case.whole
    assert seller.sent < 64 * CHUNK_SIZE


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 206 X\r\n", b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-"])
def test_a_slow_drip_is_cut_off_and_does_not_decide_when_the_others_end(tmp_path, seller, head):
    case = Case(tmp_path, made(3 * CHUNK_SIZE))

    async def drip(asked, writer):
        writer.write(head)
        while True:
            writer.write(b"1")
            await writer.drain()
            await asyncio.sleep(0.02)

    seller.tricks["/slow"] = drip
    seller.files["/f"] = case.data
    assert "too slow" in case.fails(source(seller, "/slow"), chunk_seconds=0.2)
    case.run(source(seller, "/slow"), source(seller))
    assert case.whole


def test_a_silent_source_does_not_keep_a_download_from_ending_or_being_stopped(tmp_path, seller):
    case = Case(tmp_path, made(3 * CHUNK_SIZE))
    asked_for = threading.Event()

    async def silent(asked, writer):
        asked_for.set()
        await asyncio.sleep(3600)

    seller.tricks["/silent"] = silent
    with Part(case.out, case.goal, Disk()) as part:
        download = Download(part, case.digest.leaves, [source(seller, "/silent")])
        stopper = threading.Thread(target=lambda: (asked_for.wait(10), download.stop()))
        stopper.start()
        with pytest.raises(DownloadError, match="stopped"):
            download.run()
        stopper.join()
    seller.files["/f"] = case.data
    case.run(source(seller, "/silent"), source(seller))
    assert case.whole


def test_a_connection_that_ends_at_any_byte_leaves_no_file(tmp_path, seller):
    case = Case(tmp_path, made(150))
    answer = b"HTTP/1.1 206 X\r\nContent-Length: 150\r\nContent-Range: bytes 0-149/150\r\n\r\n" + case.data
    ends = iter(range(len(answer)))

    async def end(asked, writer):
        writer.write(answer[: next(ends)])

    seller.tricks["/f"] = end
    for _ in range(len(answer)):
        case.fails(source(seller))
    del seller.tricks["/f"]
    seller.files["/f"] = case.data
    case.run(source(seller))
    assert case.whole


def test_rubbish_instead_of_http_is_no_traceback(tmp_path, seller):
    case = Case(tmp_path, made(50))
    for rubbish in [
        b"SSH-2.0-x\r\n\r\n",
        b"\0" * 5000,
        b"HTTP/1.1 200 " + b"x" * 70_000,
        b"HTTP/1.1 206 X\r\n" + b"a: b\r\n" * 500,
    ]:

        async def trick(asked, writer, rubbish=rubbish):
            writer.write(rubbish)

        seller.tricks["/f"] = trick
        case.fails(source(seller))


def test_a_busy_source_is_asked_again_when_it_says(tmp_path, seller):
    case = Case(tmp_path, made(CHUNK_SIZE))
    seller.files["/f"] = case.data

    async def busy(asked, writer):
        if len(seller.asked) < 3:
            await seller.answer(writer, 503, b"", ["Retry-After: 0"])
        else:
            await seller.honest(asked, writer)

    seller.tricks["/f"] = busy
    case.run(source(seller), pauses=(0.01, 0.01))
    assert case.whole


def test_several_sources_share_the_work(tmp_path, seller):
    case = Case(tmp_path, made(40 * CHUNK_SIZE))
    seller.files["/a"] = seller.files["/b"] = case.data
    with Seller({"/c": case.data}) as other:
        outcome = case.run(source(seller, "/a", TOKEN), source(seller, "/b"), source(other, "/c"))
        assert case.whole
        assert all(report.chunks for report in outcome.sources)
        assert "authorization" not in {name for asked in other.asked for name in asked.headers}
        assert seller.sent + other.sent < 60 * CHUNK_SIZE


def test_a_changing_etag_changes_nothing_where_every_chunk_is_checked(tmp_path, seller):
    case = Case(tmp_path, made(3 * CHUNK_SIZE))

    async def fickle(asked, writer):
        start, end = asked.span(len(case.data))
        extra = [*ranged(asked, case), f'ETag: "{len(seller.asked)}"']
        await seller.answer(writer, 206, case.data[start : start + CHUNK_SIZE], extra, length=end - start)

    seller.tricks["/f"] = fickle
    case.run(source(seller), pauses=(0.01,))
    assert case.whole


def test_an_owner_that_signs_a_contradiction_gets_no_file_through(tmp_path, seller):
    case = Case(tmp_path, made(2 * CHUNK_SIZE), file_hash=bytes(32))
    seller.files["/f"] = case.data
    with pytest.raises(ProofError, match="contradict"):
        case.run(source(seller))
    assert not case.out.exists()


def test_nothing_is_written_through_links_or_over_another_file(tmp_path, seller):
    case = Case(tmp_path, made(100))
    seller.files["/f"] = case.data
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    part = tmp_path / "d-v1.jsonl.part"
    for plant in (
        lambda: part.symlink_to(precious),
        lambda: part.hardlink_to(precious),
        lambda: os.mkfifo(part),
    ):
        plant()
        with pytest.raises(UsageError):
            case.run(source(seller))
        part.unlink()
    (tmp_path / "d-v1.jsonl.part.json").symlink_to(precious)
    case.out.symlink_to(precious)
    with pytest.raises(TakenError, match="no regular file"):
        check_target(case.out, case.goal, force=True)
    with pytest.raises(TakenError):
        case.run(source(seller))
    case.out.unlink()
    case.out.write_bytes(b"another")
    with pytest.raises(TakenError, match="--force"):
        check_target(case.out, case.goal, force=False)
    assert not check_target(case.out, case.goal, force=True)
    case.run(source(seller), force=True)
    assert case.out.read_bytes() == case.data
    assert check_target(case.out, case.goal, force=False)
    assert precious.read_bytes() == b"precious"


def test_two_processes_do_not_fill_one_part(tmp_path):
    case = Case(tmp_path, made(100))
    with Part(case.out, case.goal, Disk()), pytest.raises(BusyError):
        Part(case.out, case.goal, Disk())


def test_a_file_larger_than_the_disk_is_refused_before_anything_is_paid(tmp_path):
    case = Case(tmp_path, b"", size=1 << 52)
    with pytest.raises(UsageError, match="room for"):
        check_room(case.out, case.goal)


class Cut(Disk):
    """Fails at the n-th call, and keeps an account of what was flushed before the file got its name."""

    def __init__(self, fails_at=None):
        self.calls = []
        self.fails_at = fails_at

    def _note(self, what):
        self.calls.append(what)
        if self.fails_at is not None and len(self.calls) >= self.fails_at:
            raise OSError(28, "No space left on device")

    def write(self, fd, data, offset):
        self._note("write")
        super().write(fd, data, offset)

    def fsync(self, fd):
        self._note("fsync")
        super().fsync(fd)

    def rename(self, source, target):
        self._note(f"rename {target.name}")
        super().rename(source, target)

    def link(self, source, target):
        self._note(f"link {target.name}")
        super().link(source, target)

    def fsync_dir(self, path):
        self._note("fsync_dir")
        super().fsync_dir(path)


def test_the_file_is_flushed_before_it_gets_its_name_and_a_failing_disk_leaves_no_half_of_one(
    tmp_path, seller
):
    data = made(2 * CHUNK_SIZE)
    seller.files["/f"] = data
    disk, number = Cut(), 0
    while True:
        directory = tmp_path / str(number)
        directory.mkdir()
        case = Case(directory, data)
        try:
            with Part(case.out, case.goal, disk) as part:
                Download(part, case.digest.leaves, [source(seller)], pauses=()).run()
                part.finish(force=False)
        except StorageError:
            assert disk.calls[-1] == "fsync_dir" or not case.out.exists()
            assert not case.out.exists() or case.out.read_bytes() == data
        else:
            assert disk.calls[-5:] == ["write", "write", "fsync", "link d-v1.jsonl", "fsync_dir"]
            if number:
                break
        number += 1
        disk = Cut(fails_at=number)
    assert number > 6


class Late(Disk):
    """Another process makes a file just before this one names its own."""

    def __init__(self, out):
        self.out = out

    def link(self, source, target):
        self.out.write_bytes(b"mine")
        super().link(source, target)

    def rename(self, source, target):
        if target == self.out:
            self.out.write_bytes(b"mine")
        super().rename(source, target)


def test_a_file_that_comes_into_being_at_the_last_instant_is_not_replaced(tmp_path, seller):
    case = Case(tmp_path, made(100))
    seller.files["/f"] = case.data
    with Part(case.out, case.goal, Late(case.out)) as part:
        Download(part, case.digest.leaves, [source(seller)], pauses=()).run()
        with pytest.raises(TakenError, match="meanwhile"):
            part.finish(force=False)
    assert case.out.read_bytes() == b"mine"
    case.out.unlink()
    seller.sent = 0
    case.run(source(seller))
    assert case.whole and seller.sent == 0


def test_a_mirror_named_by_a_stranger_does_not_reach_into_this_network(tmp_path, seller):
    case = Case(tmp_path, made(100))
    seller.files["/f"] = case.data
    assert "no public network" in case.fails(HttpSource(parse(seller.url + "/f"), public_only=True))
    assert seller.asked == []


def test_a_source_that_listens_and_says_nothing_in_tls_is_dropped(tmp_path):
    case = Case(tmp_path, made(100))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = parse(f"https://127.0.0.1:{server.getsockname()[1]}/f")
        begun = time.monotonic()
        assert "too slow" in case.fails(HttpSource(address), chunk_seconds=0.1)
        assert time.monotonic() - begun < 20
