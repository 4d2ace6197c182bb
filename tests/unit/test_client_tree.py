"""Directories as streams: deterministic, and given back only as far as they stay inside."""

import io
import os
import stat
import tarfile

import pytest

from tensorage.client import tree
from tensorage.client.sources import open_source
from tensorage.errors import ProofError, UsageError


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "photos"
    (root / "empty").mkdir(parents=True)
    (root / "b").mkdir()
    (root / "b" / "x").write_bytes(os.urandom(700_000))
    (root / "b" / "tool").write_bytes(b"#!")
    (root / "b" / "tool").chmod(0o755)
    (root / "b" / "up").symlink_to("../a")
    (root / "a").write_text("text")
    (root / ("ä" * 60)).write_text("long and not ASCII")
    os.utime(root / "a", (1_000_000_000, 1_000_000_000.7))
    return root


def bytes_of(root) -> bytes:
    return b"".join(tree.stream(root))


def archive(*entries: tarfile.TarInfo) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    stream.seek(0)
    return stream


def entry(name: str, type: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type, link, size
    return info


def test_a_directory_comes_back_as_it_was(root, tmp_path):
    back = tmp_path / "back"
    back.mkdir()
    assert tree.unpack(io.BytesIO(bytes_of(root)), back) == 7
    assert {str(path.relative_to(root)) for path in root.rglob("*")} == {
        str(path.relative_to(back)) for path in back.rglob("*")
    }
    assert (back / "b" / "x").read_bytes() == (root / "b" / "x").read_bytes()
    assert stat.S_IMODE((back / "b" / "tool").stat().st_mode) == 0o755
    assert str((back / "b" / "up").readlink()) == "../a" and (back / "b" / "up").read_text() == "text"
    assert (back / "a").stat().st_mtime == 1_000_000_000
    assert bytes_of(back) == bytes_of(root)


def test_any_tar_reads_the_stream_and_its_size_is_known_before(root):
    data = bytes_of(root)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len(tar.getnames()) == 7
        assert {(info.uid, info.uname) for info in tar.getmembers()} == {(0, "")}
    assert tree.size(root) == len(data)
    with open_source(root) as source:
        view = memoryview(bytearray(len(data) + 10))
        assert (source.kind, source.size) == ("directory", len(data))
        assert source.read_into(view) == len(data) and view[: len(data)] == data


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "b/../../outside", "a/../../photos/a"])
def test_a_link_that_leads_out_is_not_put(root, target):
    (root / "link").symlink_to(target)
    with pytest.raises(UsageError, match="out of the directory"):
        bytes_of(root)


def test_what_is_no_file_is_not_put(root):
    os.mkfifo(root / "pipe")
    with pytest.raises(UsageError, match="no file, directory or link"):
        bytes_of(root)


def test_a_file_that_shrinks_meanwhile_is_said_to(root):
    with pytest.raises(UsageError, match="became shorter"):
        for piece in tree.stream(root):
            if len(piece) > 200_000:
                os.truncate(root / "b" / "x", 300_000)


@pytest.mark.parametrize(
    "entries",
    [
        [entry("/absolute")],
        [entry("../outside")],
        [entry("a/../../outside")],
        [entry(".")],
        [entry("a//b")],
        [entry("twice"), entry("twice")],
        [entry("device", tarfile.CHRTYPE)],
        [entry("fifo", tarfile.FIFOTYPE)],
        [entry("a"), entry("hard", tarfile.LNKTYPE, "a")],
        [entry("link", tarfile.SYMTYPE, "/etc/passwd")],
        [entry("link", tarfile.SYMTYPE, "../outside")],
        [entry("link", tarfile.SYMTYPE, "")],
        [entry("link", tarfile.SYMTYPE, "elsewhere"), entry("link/file")],
        [entry("link", tarfile.SYMTYPE, "."), entry("link/other", tarfile.SYMTYPE, "x")],
        [entry("file"), entry("file/below")],
        [entry("no/parent")],
        # each of the two is inside by its words; together they lead out
        [
            entry("d", tarfile.DIRTYPE),
            entry("d/e", tarfile.SYMTYPE, ".."),
            entry("x", tarfile.SYMTYPE, "d/e/g/../.."),
        ],
    ],
)
def test_a_stream_that_leads_out_is_refused_and_writes_nothing_outside(entries, tmp_path):
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    before = {str(path) for path in tmp_path.rglob("*") if inside not in path.parents}
    with pytest.raises(ProofError):
        tree.unpack(archive(*entries), inside)
    assert {str(path) for path in tmp_path.rglob("*") if inside not in path.parents} == before


def test_a_stream_that_is_cut_is_refused(root, tmp_path):
    data = bytes_of(root)
    at = data.index(b"b/x") + 300_000
    (tmp_path / "back").mkdir()
    with pytest.raises(ProofError):
        tree.unpack(io.BytesIO(data[:at]), tmp_path / "back")


def test_rights_that_nobody_should_get_are_dropped(tmp_path):
    info = entry("tool", size=3)
    info.mode = 0o6777
    tree.unpack(archive(info), tmp_path)
    assert stat.S_IMODE((tmp_path / "tool").stat().st_mode) == 0o755


def sparse(size: int) -> io.BytesIO:
    """A file of `size` zero bytes in a stream of a few KiB, as GNU tar writes it."""
    info = entry("zeros")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "zeros",
        "GNU.sparse.realsize": str(size),
    }
    data = f"1\n{size}\n0\n".encode()
    info.size = len(data)
    return io.BytesIO(info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512) + bytes(1024))


def test_a_small_stream_does_not_become_a_file_that_fills_the_disk(tmp_path):
    with pytest.raises(ProofError, match="sparse"):
        tree.unpack(sparse(100 << 20), tmp_path)
    assert not list(tmp_path.iterdir())


def test_headers_that_would_fill_the_memory_are_not_read(tmp_path):
    header = entry("x", tarfile.XHDTYPE, size=64 << 20).tobuf(tarfile.USTAR_FORMAT)
    stream = io.BytesIO(header + bytes(64 << 20))
    with pytest.raises(ProofError, match="headers"):
        tree.unpack(stream, tmp_path)
    assert stream.tell() < 1 << 20


@pytest.mark.parametrize("time", ["inf", "nan", "1e30"])
@pytest.mark.parametrize("type", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_a_time_that_there_is_not_is_refused_in_one_line(time, type, tmp_path):
    info = entry("a", type, "b" if type == tarfile.SYMTYPE else "")
    info.pax_headers = {"mtime": time}
    with pytest.raises(ProofError, match="damaged"):
        tree.unpack(io.BytesIO(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)), tmp_path)


def test_headers_of_headers_without_end_are_refused_in_one_line(tmp_path):
    one = entry("x", tarfile.XHDTYPE, size=10).tobuf(tarfile.USTAR_FORMAT) + b"10 path=a\n" + bytes(502)
    with pytest.raises(ProofError, match=r"damaged|headers"):
        tree.unpack(io.BytesIO(one * 2000 + entry("a").tobuf() + bytes(1024)), tmp_path)
