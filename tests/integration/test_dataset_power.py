"""The owner's store when the power goes, or the disk is full, at any call that changes a file."""

import pytest
from dataset_owner import ALICE, BOB, NOW, bundle, check_whole, leftovers, open_store, record
from faulty_disk import FaultyDisk, PowerCut

from tensorage.dataset.sales import OfferTerms
from tensorage.errors import StorageError

PAYMENT = {"network": "n", "asset": "a", "amount": 5, "pay_to": "p"}


def life(root, disk, acknowledged):
    """An owner's first days; what was done is noted as soon as a caller would be told."""
    store = open_store(root / "home", disk=disk)
    try:
        record(store, root / "one")
        acknowledged.append("v1")
        store.begin_payment(b"id", "chats", 1, **PAYMENT)
        acknowledged.append(store.mint_paid(b"id", "chats", 1, None, "n", 5, None))
        record(store, root / "two", time=NOW + 1)
        acknowledged.append("v2")
        store.rotate("chats", ALICE, BOB, NOW + 2)
        acknowledged.append("rotated")
        record(store, root / "one", BOB, time=NOW + 3)  # the same artifact again
        acknowledged.append("v3")
    finally:
        store.close()


def make_bundles(root):
    bundle(root / "one", b"1\n" * 700_000, note=b"n")
    bundle(root / "two", b"2\n" * 5)


def count_calls(tmp_path):
    make_bundles(tmp_path / "dry")
    disk = FaultyDisk(tmp_path / "dry")
    life(tmp_path / "dry", disk, [])
    return len(disk.calls)


def check_after(root, acknowledged):
    """Everything that was acknowledged is there and whole, and the owner can go on."""
    with open_store(root / "home") as store:
        if "v1" not in acknowledged:
            store.create("chats", ALICE.owner)
        versions = check_whole(store)
        assert versions >= sum(word in ("v1", "v2", "v3") for word in acknowledged)
        if "rotated" in acknowledged:
            assert store.dataset("chats").owner == BOB.owner
        if len(acknowledged) > 1:
            assert store.mint_paid(b"id", "chats", 1, None, "n", 5, None) == acknowledged[1]
        owner = BOB if store.dataset("chats").owner == BOB.owner else ALICE
        store.finish("chats", owner)
        log = store.log("chats")
        if len(log.entries) == 2 and owner is ALICE:
            store.rotate("chats", ALICE, BOB, NOW + 5)
            owner = BOB
        record(store, root / "one", owner, time=NOW + 9)
        assert check_whole(store) >= versions + 1
        assert leftovers(root / "home") == []


def test_after_a_power_cut_at_any_call_everything_acknowledged_is_there(tmp_path):
    calls = count_calls(tmp_path)
    assert calls > 40
    for cut_at in range(calls):
        root = tmp_path / str(cut_at)
        make_bundles(root)
        disk, acknowledged = FaultyDisk(root, cut_at=cut_at), []
        with pytest.raises(PowerCut):
            life(root, disk, acknowledged)
        disk.lose_power()
        check_after(root, acknowledged)


def test_a_disk_that_is_full_at_any_call_fails_the_command_in_one_line_and_nothing_else(tmp_path):
    for full_at in range(count_calls(tmp_path)):
        root = tmp_path / str(full_at)
        make_bundles(root)
        disk, acknowledged = FaultyDisk(root, full_at=full_at), []
        try:
            life(root, disk, acknowledged)
        except StorageError as error:
            assert "No space left" in str(error) and "Make room" in str(error)
            assert leftovers(root / "home") == []
        else:
            assert len(acknowledged) == 5  # a call that needs no space
        check_after(root, acknowledged)


def test_a_database_that_is_full_takes_nothing_half(tmp_path):
    make_bundles(tmp_path)
    with open_store(tmp_path / "home") as store:
        record(store, tmp_path / "one")
        store._writer.execute(
            f"PRAGMA max_page_count = {store._writer.execute('PRAGMA page_count').fetchone()[0]}"
        )
        with pytest.raises(StorageError, match="full"):
            for number in range(200):
                store.mint("chats", label=str(number) * 60, max_version=1)
        terms = OfferTerms("n", "a", "1", "flat", "p" * 4096)
        with pytest.raises(StorageError, match="full"):
            store.set_offer("chats", terms)
        store._writer.execute("PRAGMA max_page_count = 100000")
        store.set_offer("chats", terms)
        assert store.offer("chats") == terms
        assert check_whole(store) == 1
