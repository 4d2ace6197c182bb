"""The miner's database: versions, damage, whose it is, and the signed chain in it."""

import sqlite3
from dataclasses import replace
from hashlib import sha256

import pytest

from tensorage import merkle
from tensorage.allocator import schema, shard_rows, slots
from tensorage.allocator.errors import BusyError
from tensorage.allocator.layout import Identity
from tensorage.allocator.locks import alone, filling
from tensorage.allocator.store import Store, chunk_root, split
from tensorage.allocator.upkeep import drop
from tensorage.commitment import capacity_root, check_listing, check_successor
from tensorage.errors import StorageError, UsageError
from tensorage.ticket import SignedTicket, Stored, Ticket

ME = Identity(genesis=b"g" * 32, netuid=7, hotkey=b"m" * 32, profile=0)


def sign(message: bytes) -> bytes:
    return sha256(message).digest() * 2


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    return key == ME.hotkey and signature == sign(message)


def nodes(seed: int) -> bytes:
    """Nodes of a sector, as good as any."""
    return b"".join(sha256(bytes([seed, n])).digest() for n in range(64))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "miner.sqlite", ME) as store:
        store.record_disks({"disk": tmp_path})
        store.plan([(index, "disk") for index in range(8)])
        yield store


def test_a_database_of_a_later_version_is_refused_and_told_from_ours(tmp_path):
    path = tmp_path / "miner.sqlite"
    Store(path, ME).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {schema.VERSION + 3}")
    db.close()
    with pytest.raises(UsageError) as error:
        Store(path, ME)
    assert str(error.value) == (
        f"database {path} is of version {schema.VERSION + 3}, this tensorage knows {schema.VERSION}. "
        "Update tensorage or use --restart"
    )


@pytest.mark.parametrize("damage", [b"no database at all" * 300, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_database_is_named_with_its_remedy(tmp_path, damage):
    path = tmp_path / "miner.sqlite"
    path.write_bytes(damage)
    with pytest.raises(UsageError, match=r"miner\.sqlite is damaged.*--restart"):
        Store(path, ME)


def test_damage_inside_the_file_is_a_storage_error(tmp_path, store):
    for index in range(8):
        store.record_sealed(index, nodes(index))
    store.close()
    path = tmp_path / "miner.sqlite"
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)  # all pages but the first
    path.write_bytes(data)
    with pytest.raises((StorageError, UsageError), match=r"miner\.sqlite"), Store(path, ME) as damaged:
        damaged.sectors()


@pytest.mark.parametrize(
    "other",
    [
        replace(ME, genesis=b"h" * 32),
        replace(ME, netuid=8),
        replace(ME, hotkey=b"n" * 32),
        replace(ME, profile=1),
    ],
)
def test_a_database_belongs_to_one_identity(tmp_path, store, other):
    with pytest.raises(UsageError) as error:
        Store(store.path, other)
    assert str(ME) in str(error.value) and str(other) in str(error.value)


def test_a_failed_transaction_leaves_nothing_behind(store):
    store.set_partition({"a": 3})
    with pytest.raises(StorageError):
        store.set_partition({"b": 1, "c": -1})
    assert store.partition() == {"a": 3}
    with pytest.raises(KeyError):
        store.record_sealed(99, nodes(1))
    assert store.nodes(99) == []


def test_commitments_are_one_signed_chain_of_what_was_sealed(store):
    assert store.commit(sign, 5) is None
    seen = None
    for index in (3, 0, 6):
        store.record_sealed(index, nodes(index))
        new = store.commit(sign, 10 + index)
        new.check(verify)
        if seen is not None:
            check_successor(seen, new.commitment)
        seen = new.commitment
        check_listing(seen, store.entries())
        assert store.commit(sign, 100) is None  # nothing has changed
    assert (seen.seq, seen.block_number) == (3, 16)
    assert seen.capacity_root == capacity_root(
        [(index, merkle.root([nodes(index)[i : i + 32] for i in range(0, 2048, 32)])) for index in (0, 3, 6)]
    )


def test_the_newest_two_commitments_keep_their_listings(store):
    for index in range(4):
        store.record_sealed(index, nodes(index))
        store.commit(sign, index)
    assert [len(store.listing(seq)) for seq in (1, 2, 3, 4)] == [0, 0, 3, 4]
    assert store.listing(4, start=1, limit=2) == store.entries()[1:3]
    assert store.commitment().commitment.seq == 4
    assert store.commitment(1).commitment.sector_count == 1
    assert store.commitment_by_hash(store.commitment(2).commitment.hash) == store.commitment(2)
    assert store.commitment(5) is store.commitment_by_hash(bytes(32)) is None


def test_quarantined_and_forgotten_sectors_are_not_committed_to(store):
    for index in range(3):
        store.record_sealed(index, nodes(index))
    assert store.quarantine(1, "has wrong bytes") and not store.quarantine(1, "again")
    store.forget([2])
    assert [index for index, _ in store.entries()] == [0]
    assert store.sector(1).reason == "has wrong bytes"
    assert store.chunk_roots(2) is None and store.nodes(2) == []


def test_a_restart_goes_on_with_the_chain_of_commitments(tmp_path):
    directory = tmp_path / ME.directory_name
    directory.mkdir()
    with Store(directory / "miner.sqlite", ME) as store:
        store.record_disks({"disk": directory})
        store.plan([(0, "disk"), (1, "disk")])
        store.record_sealed(0, nodes(0))
        first = store.commit(sign, 5)
        with pytest.raises(BusyError, match="in use"):
            drop([tmp_path], ME)
    assert drop([tmp_path], replace(ME, profile=1)).chain_kept
    assert drop([tmp_path], ME).chain_kept
    with Store(directory / "miner.sqlite", ME) as store:
        assert store.sectors() == [] and store.commitment() == first
        store.record_disks({"disk": directory})
        store.plan([(1, "disk")])
        store.record_sealed(1, nodes(1))
        check_successor(first.commitment, store.commit(sign, 1).commitment)
    (directory / "miner.sqlite").write_bytes(b"\0" * 100_000)
    assert not drop([tmp_path], ME).chain_kept
    with Store(directory / "miner.sqlite", ME) as store:
        assert store.commitment() is None


def test_one_process_fills_and_a_restart_wants_the_database_alone(tmp_path):
    with (
        filling(tmp_path),
        pytest.raises(BusyError, match="being filled by another process"),
        filling(tmp_path),
    ):
        pass
    with filling(tmp_path), alone(tmp_path), pytest.raises(BusyError, match="--restart"):
        Store(tmp_path / "miner.sqlite", ME)


def test_a_root_is_composed_of_the_shards_that_stand_and_the_filler_between(tmp_path):
    """A sector of 256 chunks with shards in all states: taken, committed, ended with a hole, given back."""
    me = replace(ME, profile=1)
    filler = [nodes(chunk % 200) for chunk in range(256)]
    roots = [chunk_root(part) for part in filler]
    with Store(tmp_path / "miner.sqlite", me) as store:
        store.record_disks({"disk": tmp_path})
        store.plan([(5, "disk")])
        store.record_sealed(5, b"".join(filler))
        tickets = {chunk: ticket(me, chunk, leaves) for chunk, leaves in ((0, 16), (7, 512), (9, 1024))}

        def take(chunk: int) -> None:
            signed = tickets[chunk]
            fields = signed.ticket

            def work(db: sqlite3.Connection) -> None:
                stored = Stored(fields.hash, 1, b"r" * 64)
                shard_rows.insert(db, signed, 1, 1, stored, b"n" * (fields.leaves * 2))
                slots.take(db, me.sectors, (5, chunk), fields.hash, fields.leaves, fields.shard_root)

            store.write(work)
            below = split(filler[chunk])  # the shard's root, as if all were hashed, takes the place of these
            level = merkle.levels(below)
            height = fields.leaves.bit_length() - 5
            node = fields.shard_root
            for siblings in level[height:-1]:
                node = merkle.node_hash(node, siblings[1])
            with_shards[chunk] = node

        def has() -> bytes:
            (entry,) = store.entries()
            return entry[1]

        def root(*standing: int) -> bytes:
            return merkle.root([with_shards[n] if n in standing else roots[n] for n in range(256)])

        with_shards: dict[int, bytes] = {}
        take(0)
        assert has() == root(0) and store.commit(sign, 1).commitment.seq == 1
        take(7)
        assert has() == root(0, 7) and store.committed_chunk_roots(5) == join(roots, with_shards, 0)
        hole = slots.Hole(5, 0, 16)
        assert store.read(lambda db: slots.to_punch(db, 1)) == [hole]
        store.write(lambda db: slots.mark(db, [hole], (0,), 2))
        store.write(lambda db: slots.end(db, [tickets[0].ticket.hash], "ended", "", 1))
        take(9)
        assert has() == root(0, 7, 9)  # the filler of chunk 0 is not there: its shard goes on to be committed
        store.commit(sign, 1)
        assert store.read(slots.to_fill) == [hole] and store.read(lambda db: slots.to_punch(db, 2)) == []
        store.write(lambda db: slots.filled(db, [hole]))
        assert has() == root(7, 9) and store.pending() == slots.Pending(0, 1, 2)
        store.commit(sign, 1)
        assert store.committed_chunk_roots(5) == join(roots, with_shards, 7, 9)
        for seq, standing in ((1, (0,)), (2, (0, 7, 9)), (3, (7, 9))):
            assert store.committed_chunk_roots(5, seq) == join(roots, with_shards, *standing)
        assert store.committed_chunk_roots(5, 4) is store.committed_chunk_roots(5, 0) is None
        assert store.forget([5]) == [] and store.sector(5) is not None


def test_slots_lie_together_until_a_sector_is_full(tmp_path):
    me = replace(ME, profile=1)
    with Store(tmp_path / "miner.sqlite", me) as store:
        store.record_disks({"disk": tmp_path})
        store.plan([(sector, "disk") for sector in range(3)])
        for sector in range(3):
            store.record_sealed(sector, b"".join(nodes(chunk % 200) for chunk in range(256)))

        def put(db: sqlite3.Connection) -> list[tuple[int, int]]:
            placed = []
            for serial in range(260):
                place = slots.free_chunk(db, me.sectors, 1)
                fields = ticket(me, serial % 256, 16).ticket
                fields = replace(fields, serial=serial)
                shard_rows.insert(
                    db, SignedTicket(fields, bytes(64)), 1, 1, Stored(fields.hash, 1, bytes(64)), bytes(32)
                )
                slots.take(db, me.sectors, place, fields.hash, 16, fields.shard_root)
                placed.append(place)
            return placed

        placed = store.write(put)
    assert len(set(placed)) == 260
    assert [len([p for p in placed if p[0] == sector]) for sector in (2, 1, 0)] == [256, 4, 0]


def join(roots: list[bytes], with_shards: dict[int, bytes], *standing: int) -> bytes:
    return b"".join(with_shards[n] if n in standing else root for n, root in enumerate(roots))


def ticket(me: Identity, number: int, leaves: int) -> SignedTicket:
    root = sha256(bytes([number])).digest()
    fields = Ticket(me.genesis, me.netuid, b"v" * 32, b"c" * 32, me.hotkey, root, leaves, 1 << 40, number)
    return SignedTicket(fields, b"s" * 64)
