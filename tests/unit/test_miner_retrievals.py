"""Retrievals are recorded behind the answers, in batches, and only those that a client really signed."""

from __future__ import annotations

import asyncio

import pytest

from tensorage import keyauth
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.errors import StorageError
from tensorage.miner import retrievals
from tensorage.miner.retrievals import Retrievals
from tensorage.ticket import Ticket, piece_path
from tensorage.transport.axon import Client

MINER = Hotkey.from_uri("//M1")
READER = keyauth.SigningKey(b"s" * 32)
TICKET = Ticket(bytes(32), 1, b"v" * 32, READER.public_key, MINER.public_key, b"r" * 32, 1024, 10, 1)


def asked(nonce: int, first: int = 0, count: int = 16, *, path: str = "") -> Client:
    """The client of a request for a piece."""
    path = path or piece_path(TICKET.hash, first, count)
    signature = READER.sign(keyauth.request_hash("GET", path, MINER.public_key, nonce, b""))
    return Client("key", READER.public_key, READER.public_key.hex(), nonce, signature)


class Disk:
    """Keeps records; fails while it is told to."""

    def __init__(self) -> None:
        self.batches: list[list] = []
        self.full = False

    def write(self, batch) -> None:
        if self.full:
            raise StorageError("the disk is full")
        self.batches.append(list(batch))

    @property
    def records(self) -> list:
        return [record for batch in self.batches for record, _ in batch]


@pytest.fixture
async def recording(monkeypatch):
    monkeypatch.setattr(retrievals, "EVERY", 0.01)
    disk = Disk()
    kept = Retrievals(disk.write, miner=MINER.public_key, sign=MINER.sign)
    task = asyncio.create_task(kept.run())
    yield kept, disk
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    kept.close()


async def until(holds) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


async def test_a_read_is_recorded_so_that_both_signatures_can_be_checked(recording):
    kept, disk = recording
    for nonce in range(600):  # more than a batch
        kept.note(TICKET, 32, 16, asked(nonce, 32))
    assert disk.batches == []  # nothing of it on the event loop
    await until(lambda: len(disk.records) == 600)
    assert len(disk.batches) == 2
    assert [record.nonce_ns for record in disk.records] == list(range(600))
    for record in disk.records[::100]:
        record.check(TICKET, verify)


async def test_what_a_client_did_not_sign_in_the_one_spelling_is_not_recorded(recording):
    kept, disk = recording
    kept.note(TICKET, 0, 16, asked(1, path=piece_path(TICKET.hash, 0, 16) + "&x=1"))
    kept.note(TICKET, 0, 16, asked(2, 16, 16))
    kept.note(TICKET, 0, 16, Client("hotkey", MINER.public_key, MINER.ss58, 3, None))
    kept.note(TICKET, 0, 16, asked(4))
    await until(lambda: disk.batches)
    assert [record.nonce_ns for record in disk.records] == [4]


async def test_a_full_disk_loses_no_record_and_an_end_writes_the_last(recording):
    kept, disk = recording
    disk.full = True
    kept.note(TICKET, 0, 16, asked(1))
    await asyncio.sleep(0.1)
    kept.note(TICKET, 0, 16, asked(2))
    disk.full = False
    await until(lambda: len(disk.records) == 2)
    assert [record.nonce_ns for record in disk.records] == [1, 2]


async def test_an_orderly_end_writes_what_was_noted_last():
    disk = Disk()
    kept = Retrievals(disk.write, miner=MINER.public_key, sign=MINER.sign)
    kept.note(TICKET, 0, 16, asked(1))
    kept.close()
    assert [record.nonce_ns for record in disk.records] == [1]


async def test_what_waits_is_bounded(monkeypatch, recording):
    kept, disk = recording
    monkeypatch.setattr(retrievals, "MOST_WAITING", 3)
    for nonce in range(10):
        kept.note(TICKET, 0, 16, asked(nonce))
    await until(lambda: disk.batches)
    assert len(disk.records) == 3
