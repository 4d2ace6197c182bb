"""Clients' shards on a miner's disks: taken whole or not at all, answered for, given back byte for byte."""

import os
import resource
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from allocator_data import ME, fill, flip, is_sealed
from shard_data import (
    FAR,
    VALIDATOR,
    Alone,
    answers_all,
    bytes_kept,
    bytes_of,
    grant,
    put,
    root_with,
    sign,
    ticket,
)

from tensorage import shard
from tensorage.allocator import overlay, schema
from tensorage.allocator.errors import DamagedShardError
from tensorage.allocator.plan import Headroom, Target
from tensorage.allocator.reader import Reader
from tensorage.allocator.shards import ShardStore
from tensorage.allocator.slots import Pending
from tensorage.allocator.store import Store, split
from tensorage.allocator.upkeep import drop
from tensorage.chain.address import ss58
from tensorage.errors import ProofError, RequestError, StorageError
from tensorage.ticket import Retrieval, SignedTicket, Stored

NOW = 1_000_000
DAY = 86_400


@pytest.fixture
def data(tmp_path):
    with Alone([tmp_path / "a", tmp_path / "b"], ME) as data:
        fill(data, 6)
        grant(data, 6)
        commit(data)
        yield data


@pytest.fixture
def shards(data):
    with ShardStore(data.store, reserve=0) as shards:
        yield shards


def files(data) -> list[str]:
    """Names of everything below the directories of shards."""
    return sorted(p.name for d in data.directories for p in (d / "shards").glob("??/*"))


def refusal(work) -> str:
    with pytest.raises(RequestError) as error:
        work()
    return error.value.kind


def commit(data, times: int = 1) -> None:
    for _ in range(times):
        assert data.store.commit(sign, 1) is not None
        data.settle()


def give_back(data) -> None:
    with data.filling():
        assert data.give_back()


@pytest.mark.parametrize("leaves", shard.SHARD_LEAVES)
def test_a_shard_displaces_filler_and_gives_way_to_it_again(data, shards, leaves):
    signed = ticket(1, leaves)
    stored = put(shards, signed, step=50_000)
    stored.check(ME.hotkey, lambda key, message, signature: signature == sign(message))
    assert put(shards, signed) == stored and bytes_kept(shards, signed) == bytes_of(1, leaves)
    assert data.store.pending() == Pending(taken=1, leaving=0, lingering=0)

    commit(data)
    ((index, chunk, raw),) = shards.slots()
    assert SignedTicket.decode(raw) == signed and chunk == 0
    assert dict(data.store.entries())[index] == root_with(index, {index: signed})
    assert shards.record(signed.ticket.hash).state == "committed"
    sector = data.store.sector(index)
    assert is_sealed(data, sector)  # the commitment before has the filler and is answered
    assert answers_all(data) == [1, 2] and data.store.pending().lingering == 1
    commit(data)
    space = sector.path.stat().st_blocks * 512
    assert space <= ME.sectors.size - leaves * 4096 + 65_536 and answers_all(data) == [2, 3]
    with data.filling():
        assert data.verify() == [] and data.verify_shards() == []

    shards.remove(signed.ticket.hash, NOW)
    assert shards.expire(NOW + 7 * DAY) == (0, 1)
    assert data.store.commit(sign, 1) is None  # the filler is not back: the slot goes on
    assert answers_all(data) == [2, 3]
    give_back(data)
    assert is_sealed(data, sector) and files(data) != []
    commit(data)
    assert shards.slots() == [] and answers_all(data) == [3, 4] and files(data) != []
    commit(data)
    assert files(data) == [] and answers_all(data) == [4, 5]
    assert dict(data.store.entries())[index] == root_with(index, {})
    assert data.store.commit(sign, 1) is None and data.store.pending() == Pending(0, 0, 0)


def test_what_changed_in_a_sector_is_seen_without_its_filler(data, shards):
    signed = [ticket(number, leaves) for number, leaves in enumerate((16, 256, 1024))]
    for each in signed:
        put(shards, each)
    commit(data, 2)
    for index, chunk, raw in shards.slots():
        fields = SignedTicket.decode(raw).ticket
        assert shards.transition(index, 0) is None and shards.transition(index, 99) is None
        known = shards.transition(index, 1)
        (change,) = known.changed
        before, after = split(known.before)[chunk], split(known.after)[chunk]
        assert shard.chunk_root(change.node, fields.leaves, change.siblings) == before
        assert shard.chunk_root(fields.shard_root, fields.leaves, change.siblings) == after
        assert shards.transition(index, 3).changed == ()
        assert known.after == data.store.committed_chunk_roots(index)
    gone = SignedTicket.decode(shards.slots()[0][2]).ticket
    index = shards.slots()[0][0]
    shards.remove(gone.hash, NOW)
    shards.expire(NOW + 8 * DAY)
    give_back(data)
    commit(data, 2)
    assert shards.transition(index, 3).changed == ()
    assert shards.transition(index, 3).before != shards.transition(index, 3).after
    assert shards.transition(index, 1).before == shards.transition(index, 1).after


def test_pieces_prove_themselves(shards):
    signed = ticket(3, 64)
    put(shards, signed)
    fields, whole = signed.ticket, bytes_of(3, 64)
    for count in (1, 2, 8, 16, 32, 64):
        for first in range(0, 64, count):
            answer = shards.read(fields.hash, first, count)
            piece = shard.read_piece(fields.shard_root, 64, first, count, answer)
            assert piece == whole[first * 4096 : (first + count) * 4096]
    nonce = shard.nonce(b"s" * 32, b"a" * 32, ME.hotkey, fields.hash)
    answer = shard.answer(nonce, 20, 64, lambda number: shards.leaf(fields.hash, number), sign)
    shard.verify_answer(
        nonce, 20, fields.shard_root, 64, ME.hotkey, answer, lambda key, message, s: s == sign(message)
    )
    with pytest.raises(ProofError, match="no piece"):
        shards.read(fields.hash, 1, 2)
    assert refusal(lambda: shards.read(b"?" * 32, 0, 1)) == "unknown"


def test_a_shard_that_is_cut_long_or_another_leaves_nothing(data, shards):
    signed, whole = ticket(4), bytes_of(4, 16)
    for wrong in (whole[:-1], whole[:-1] + b"?", b""):
        with pytest.raises(ProofError), shards.admit(signed, NOW) as upload:
            upload.write(wrong)
            assert len(files(data)) == 1
            upload.finish(sign, 1)
        assert files(data) == [] and shards.record(signed.ticket.hash) is None
    with pytest.raises(ProofError, match="more than"), shards.admit(signed, NOW) as upload:
        upload.write(whole + b"?")
    with shards.admit(signed, NOW) as upload:
        upload.write(whole)
    assert files(data) == [] and shards.usage() == {} and shards.free_bytes() > 0
    put(shards, signed)


def test_a_ticket_serves_once(data, shards):
    other = SignedTicket(ticket(9, 32).ticket, b"s" * 64)
    with shards.admit(ticket(9), NOW):
        assert refusal(lambda: shards.admit(ticket(9), NOW)) == "unready"
        assert refusal(lambda: shards.admit(other, NOW)) == "conflict"
    put(shards, ticket(9))
    assert refusal(lambda: shards.admit(other, NOW)) == "conflict"
    assert refusal(lambda: shards.admit(ticket(10, expires=NOW), NOW)) == "forbidden"
    shards.remove(ticket(9).ticket.hash, NOW)
    assert refusal(lambda: shards.admit(ticket(9), NOW)) == "conflict"
    shards.expire(NOW + 8 * DAY)
    shards.prune(NOW + 8 * DAY)
    data.settle()
    shards.prune(NOW + 8 * DAY)
    assert files(data) == [] and data.store.pending() == Pending(0, 0, 0)
    assert refusal(lambda: shards.admit(ticket(9), NOW)) == "conflict"
    shards.prune(FAR + 1)
    assert shards.record(ticket(9).ticket.hash) is None


def test_the_trash_is_kept_for_its_days_and_an_expired_shard_no_longer(data, shards):
    lasting, short = ticket(1), ticket(2, expires=NOW + 100)
    for each in (lasting, short):
        put(shards, each, now=NOW)
    commit(data, 2)
    name = lasting.ticket.hash
    row = shards.remove(name, NOW)
    assert shards.remove(name, NOW + 5).changed == NOW and shards.until(row) == NOW + 7 * DAY
    assert shards.expire(NOW + 7 * DAY - 1) == (1, 0) and shards.live() == 0
    assert shards.usage() == {ss58(VALIDATOR): 2} and bytes_kept(shards, lasting) == bytes_of(1, 16)
    assert shards.restore(name, NOW + 9).state == "committed" and shards.live() == 1
    assert shards.until(shards.record(short.ticket.hash)) == NOW + 100 + 7 * DAY
    assert refusal(lambda: shards.restore(short.ticket.hash, NOW + 101)) == "conflict"
    assert shards.expire(NOW + 100 + 7 * DAY) == (0, 1)
    assert refusal(lambda: shards.restore(short.ticket.hash, NOW)) == "conflict"
    assert refusal(lambda: shards.remove(b"?" * 32, NOW)) == "unknown"
    assert refusal(lambda: bytes_kept(shards, short)) == "unknown"
    assert shards.usage() == {ss58(VALIDATOR): 1} and answers_all(data) == [2, 3]


def test_quotas_and_leaving_hold_for_those_on_their_way_too(data, shards):
    grant(data, 2)
    assert refusal(lambda: shards.admit(ticket(1, validator=b"w" * 32), NOW)) == "full"
    put(shards, ticket(1))
    with shards.admit(ticket(2), NOW):
        assert refusal(lambda: shards.admit(ticket(3), NOW)) == "full"
    put(shards, ticket(3))
    shards.remove(ticket(3).ticket.hash, NOW)
    assert refusal(lambda: shards.admit(ticket(4), NOW)) == "full"
    shards.expire(NOW + 8 * DAY)
    shards.set_leaving(True)
    assert shards.leaving() and refusal(lambda: shards.admit(ticket(4), NOW)) == "unready"
    assert isinstance(shards.admit(ticket(1), NOW), Stored)
    shards.set_leaving(False)
    put(shards, ticket(4))
    grant(data, 100)
    for number in range(10, 14):  # all chunks but those
        put(shards, ticket(number))
    assert refusal(lambda: shards.admit(ticket(15), NOW)) == "full"


def test_a_full_disk_refuses_and_leaves_nothing_half(data, shards):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        assert refusal(lambda: shards.admit(ticket(1, 1024), NOW)) == "full"
        put(shards, ticket(2, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(files(data)) == 1 and shards.usage() == {ss58(VALIDATOR): 1}
    db = shards._writing._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "disk is full"
    record = (Retrieval(b"r" * 32, 0, 1, 1, b"c" * 64, b"m" * 64), VALIDATOR)
    with pytest.raises(StorageError, match="full"):
        while True:
            shards.add_retrievals([record], NOW)
    with pytest.raises(RequestError, match="database is full"):
        for number in range(3, 8):  # what room there is in pages that are begun
            put(shards, ticket(number, 1024))
    assert len(files(data)) == sum(shards.usage().values()) == number - 2
    db.execute("PRAGMA max_page_count = 1000000")
    put(shards, ticket(number, 1024))
    with ShardStore(data.store, reserve=1 << 60) as careful:
        assert refusal(lambda: careful.admit(ticket(99), NOW)) == "full" and careful.free_bytes() == 0


def test_many_at_once_go_to_all_disks_and_lie_on_that_of_their_sector(tmp_path):
    with Alone([tmp_path / "a", tmp_path / "b"], ME) as data:
        fill(data, 24)
        grant(data, 20)
        with ShardStore(data.store, reserve=0) as shards, ThreadPoolExecutor(8) as pool:
            tickets = [ticket(number, 256) for number in range(24)]

            def attempt(signed: SignedTicket) -> Stored | str:
                try:
                    return put(shards, signed)
                except RequestError as error:
                    return error.kind

            outcomes = list(pool.map(attempt, tickets))
            assert outcomes.count("full") == 4 and shards.usage() == {ss58(VALIDATOR): 20}
            commit(data)
            placed = shards.slots()
            assert len(placed) == 20 == len({(index, chunk) for index, chunk, _ in placed})
            for index, _, raw in placed:
                row = shards.record(SignedTicket.decode(raw).ticket.hash)
                assert row.directory == data.store.sector(index).directory
            assert {data.store.sector(index).directory for index, _, _ in placed} == set(data.directories)
            answers_all(data)


def test_a_damaged_shard_is_named_given_up_and_its_filler_returns(data, shards):
    signed = ticket(5, 64)
    put(shards, signed)
    commit(data, 2)
    index = shards.slots()[0][0]
    reader = Reader(data.store)
    committed = reader.committed(data.store.commitment().commitment.hash)
    entry = [number for number, _ in committed.entries].index(index)
    committed.opening(entry, 3)
    flip(shards.record(signed.ticket.hash).path, 17)
    with pytest.raises(DamagedShardError, match="wrong bytes in leaves 0 to 15"):
        committed.opening(entry, 3)
    assert committed.opening(entry, 40).leaf == bytes_of(5, 64)[40 * 4096 : 41 * 4096]
    reader.close()
    assert shards.record(signed.ticket.hash).state == "damaged" and shards.usage() == {}
    assert refusal(lambda: shards.read(signed.ticket.hash, 0, 1)) == "unknown"
    assert refusal(lambda: shards.admit(signed, NOW)) == "conflict"
    give_back(data)
    commit(data, 2)
    assert files(data) == [] and answers_all(data) and is_sealed(data, data.store.sector(index))


@pytest.mark.parametrize("damage", ["gone", "short", "wrong"])
def test_damage_is_found_by_recovery_reading_and_verification(data, shards, damage):
    signed = ticket(6, 32)
    put(shards, signed)
    path = shards.record(signed.ticket.hash).path
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        os.truncate(path, 5000)
    else:
        flip(path, 90_000)
    with data.filling():
        found = data.verify_shards() if damage == "wrong" else data.recover().shards
    assert [(lost.ticket, lost.path) for lost in found] == [(signed.ticket.hash, path)]
    assert data.store.pending() == Pending(0, 0, 0)  # it was never committed: the slot is gone at once
    with pytest.raises(DamagedShardError), shards.admit(ticket(7, 32), NOW) as upload:
        upload.write(bytes_of(7, 32))
        upload.finish(sign, 1)
        flip(upload.path, 1)
        shards.read(ticket(7, 32).ticket.hash, 0, 16)


def test_a_sector_that_is_lost_or_damaged_keeps_its_slots(data, shards):
    for number in range(3):
        put(shards, ticket(number, 128))
    commit(data, 2)
    before = shards.slots(), data.store.entries()
    lost, damaged, shrunk = (data.store.sector(index) for index, _, _ in before[0])
    lost.path.unlink()
    flip(damaged.path, -5)
    with data.filling():
        assert [damage.sector.index for damage in data.verify()] == sorted([lost.index, damaged.index])
        found = data.recover()
        assert found.lost == () and {s.index for s in found.damaged} == {lost.index, damaged.index}
        plan = data.plan(Target(size=0), Headroom(size=0))
        assert {place.index for place in plan.keep + plan.reseal} == {index for index, _, _ in before[0]}
        data.apply(plan)
    for number in range(3):
        assert bytes_kept(shards, ticket(number, 128)) == bytes_of(number, 128)
    with data.filling():
        assert data.fill(1)
    assert shards.slots() == before[0]
    kept = {index for index, _, _ in before[0]}
    assert data.store.entries() == [entry for entry in before[1] if entry[0] in kept]
    assert is_sealed(data, lost) and not is_sealed(data, shrunk)
    assert data.settle().punched == 2 and not is_sealed(data, lost)
    commit(data)
    assert answers_all(data, newest_only=True) == [4]  # the one before lists what was given up


def test_a_sector_that_got_a_slot_since_the_plan_was_made_stays(data, shards):
    with data.filling():
        plan = data.plan(Target(size=0), Headroom(size=0))
        assert len(plan.remove) == 6
        put(shards, ticket(1, 16))
        data.apply(plan)
    assert [sector.path.exists() for sector in data.store.sectors()] == [True]
    assert bytes_kept(shards, ticket(1, 16)) == bytes_of(1, 16)


def test_where_space_is_short_holes_are_filled_some_at_a_time(data, shards, monkeypatch):
    for number in range(3):
        put(shards, ticket(number, 64))
    commit(data, 2)
    for number in range(3):
        shards.remove(ticket(number, 64).ticket.hash, NOW)
    assert shards.expire(NOW + 7 * DAY) == (0, 3)
    monkeypatch.setattr(overlay, "_room", lambda directory: 64 * 4096 + 1)  # a disk that is nearly full
    for left in (2, 1, 0):
        give_back(data)
        assert data.store.pending().leaving == 1
        commit(data, 2)
        assert len(shards.slots()) == len(files(data)) == left and answers_all(data)
    assert all(is_sealed(data, sector) for sector in data.store.sectors())


def test_what_uploads_left_behind_is_swept_and_what_is_kept_is_not(data):
    with ShardStore(data.store, reserve=0) as shards:
        put(shards, ticket(1))
        kept = shards.record(ticket(1).ticket.hash).path
        begun = shards.admit(ticket(2), NOW)
        begun.write(b"begun")
    stray = kept.with_name("f" * 64 + ".shard")
    stray.write_bytes(b"no row")
    notes = kept.with_name("notes.txt")
    notes.write_text("not ours")
    with ShardStore(data.store, reserve=0) as shards:
        assert sorted([kept.name, notes.name]) == files(data)
        assert bytes_kept(shards, ticket(1)) == bytes_of(1, 16)


def test_retrievals_are_kept_for_their_validator(shards):
    records = [
        (Retrieval(bytes([n]) * 32, n, 1, n << 60, b"c" * 64, b"m" * 64), bytes([n % 2]) * 32)
        for n in range(6)
    ]
    shards.add_retrievals(records, NOW)
    found = shards.retrievals(b"\1" * 32, 0, 2)
    assert [record for _, record in found] == [records[1][0], records[3][0]]
    assert [r for _, r in shards.retrievals(b"\1" * 32, found[-1][0] + 1, 9)] == [records[5][0]]
    shards.prune(NOW + 7 * DAY)
    assert len(shards.retrievals(b"\1" * 32, 0, 9)) == 3
    shards.prune(NOW + 7 * DAY + 1)
    assert shards.retrievals(b"\1" * 32, 0, 9) == []


def test_a_restart_drops_shards_with_everything_else(data, tmp_path):
    with ShardStore(data.store, reserve=0) as shards:
        put(shards, ticket(1))
        shards.set_leaving(True)
        commit(data, 2)
    last = data.store.commitment()
    data.close()
    assert drop([tmp_path / "a", tmp_path / "b"], ME).chain_kept
    assert not list(tmp_path.rglob("*.shard")) and not list(tmp_path.rglob("shards"))
    with Alone([tmp_path / "a", tmp_path / "b"], ME) as data, ShardStore(data.store) as shards:
        assert shards.usage() == {} and not shards.leaving() and data.store.commitment() == last


def test_a_database_of_the_first_version_goes_on(tmp_path):
    path = tmp_path / "miner.sqlite"
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(schema.MIGRATIONS[0] + "PRAGMA user_version = 1;")
    db.execute("INSERT INTO identity VALUES (1, ?, ?, ?, ?)", (ME.genesis, ME.netuid, ME.hotkey, ME.profile))
    db.execute("INSERT INTO disks VALUES (1, 'd', ?)", (str(tmp_path),))
    db.execute("INSERT INTO sectors VALUES (4, 1, 'sealed', '', ?, ?)", (b"r" * 32, b"r" * 32))
    db.close()
    with Store(path, ME) as store:
        assert store.entries() == [(4, b"r" * 32)] and store.pending() == Pending(0, 0, 0)
        assert store.commit(sign, 1).commitment.sector_count == 1


def test_an_error_of_the_database_is_everybodys_own(data, shards):
    """Uploads that end together fail together, each with its own error, and leave nothing."""
    uploads = [shards.admit(ticket(number), NOW) for number in range(4)]
    shards._writing.close()

    def finish(number: int) -> str:
        with uploads[number] as upload:
            upload.write(bytes_of(number, 16))
            try:
                upload.finish(sign, time.time_ns())
            except StorageError as error:
                return error.message
        return "finished"

    with ThreadPoolExecutor(4) as pool:
        assert all("cannot be used" in message for message in pool.map(finish, range(4)))
    assert files(data) == []
