"""The client's catalog and its directory: states of a file, marks of stripes, one process a name."""

import multiprocessing
import os
import stat
from dataclasses import replace

import pytest

from tensorage.client.catalog import VERSION, Catalog, FileRow, Mark, ShardRow
from tensorage.client.home import BusyError, Home
from tensorage.errors import UsageError

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
MARK = Mark(number=0, leaves=1024, length=100, prefix=84, digest=bytes(32))
SHARD = ShardRow(0, 3, b"ticket", HOTKEY, "127.0.0.1", 9, 1, b"signature")


def row(number: int, name: str = "photos", **fields) -> FileRow:
    return replace(
        FileRow(
            id=number.to_bytes(16, "big"),
            name=name,
            key=bytes(32),
            kind="file",
            state="uploading",
            data_shards=2,
            parity_shards=4,
            created=1,
            expires=1000,
            genesis=bytes(32),
            netuid=1,
            gateway_hotkey=HOTKEY,
            gateway_ip="127.0.0.1",
            gateway_port=9,
        ),
        **fields,
    )


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "client")


@pytest.fixture
def catalog(home):
    with Catalog(home.catalog) as opened:
        yield opened


def test_nobody_else_can_read_the_keys(tmp_path):
    os.umask(0o022)
    (tmp_path / "client").mkdir(mode=0o755)
    home = Home(tmp_path / "client")
    with Catalog(home.catalog) as catalog:
        catalog.begin(row(1))
        for path in (home.path, *home.path.iterdir()):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_name_goes_over_to_the_new_file_only_when_that_is_whole(catalog):
    catalog.begin(row(1))
    assert catalog.finish(row(1).id, 5, bytes(32)) is None
    catalog.begin(row(2))
    assert catalog.named("photos", "stored").id == row(1).id
    with pytest.raises(UsageError, match="being put already"):
        catalog.begin(row(3))
    assert catalog.finish(row(2).id, 6, bytes(32)).id == row(1).id
    assert catalog.named("photos", "stored").id == row(2).id
    assert catalog.file(row(1).id).state == "removing"


def test_a_file_is_not_brought_back_over_another(catalog):
    catalog.begin(row(1))
    catalog.finish(row(1).id, 5, bytes(32))
    catalog.move(row(1).id, "trash", 500)
    catalog.begin(row(2))
    catalog.finish(row(2).id, 6, bytes(32))
    with pytest.raises(UsageError, match="has that name"):
        catalog.move(row(1).id, "stored")
    assert catalog.file(row(1).id).state == "trash"


def test_a_key_is_forgotten_with_the_end_of_its_trash_time(catalog):
    catalog.begin(row(1))
    catalog.finish(row(1).id, 5, bytes(32))
    catalog.move(row(1).id, "trash", 500)
    catalog.expire(499)
    assert catalog.file(row(1).id) is not None
    catalog.expire(500)
    assert catalog.file(row(1).id) is None


def test_the_first_mark_of_a_stripe_stays(catalog):
    catalog.begin(row(1))
    assert catalog.mark(row(1).id, MARK) is None
    other = replace(MARK, digest=bytes([1]) * 32)
    assert catalog.mark(row(1).id, other) == MARK
    assert catalog.mark(row(1).id, MARK) == MARK
    assert catalog.stripes(row(1).id) == [(MARK, False)]


def test_shards_and_the_end_of_their_stripe_are_one_step(catalog):
    catalog.begin(row(1))
    catalog.mark(row(1).id, MARK)
    catalog.keep(row(1).id, [SHARD, replace(SHARD, number=1)], whole=0)
    catalog.lose(row(1).id, 0, {3})
    assert catalog.shards(row(1).id) == [replace(SHARD, number=1)]
    assert (catalog.short(row(1).id, 1), catalog.short(row(1).id, 2)) == ({}, {0: 1})
    assert catalog.stripes(row(1).id) == [(MARK, True)]
    catalog.forget(row(1).id)
    assert catalog.shards(row(1).id) == []


def test_a_catalog_of_a_later_version_is_refused(home):
    with Catalog(home.catalog) as catalog:
        catalog._db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(UsageError, match="Update tensorage"):
        Catalog(home.catalog)


def test_a_damaged_catalog_is_named(home):
    home.catalog.write_bytes(b"this is no database, but long enough to be looked at" * 20)
    with pytest.raises(UsageError, match="cannot be used"):
        Catalog(home.catalog)


def hold(path, ready, leave):
    with Home(path).alone("photos"):
        ready.set()
        leave.wait(30)


def test_one_process_at_a_time_puts_a_name_and_a_killed_one_holds_nothing(home):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(home.path, ready, leave))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(BusyError, match="another process"), home.alone("photos"):
            pass
        with home.alone("others"):
            pass
        process.kill()
        process.join(30)
        with home.alone("photos"):
            pass
    finally:
        process.kill()
        process.join(30)
