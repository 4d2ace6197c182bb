"""files.sqlite: quotas that hold, serials that come once, answers that can be asked for again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tensorage import ticket as tickets
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.errors import ProofError, RequestError, UsageError
from tensorage.gateway.files import TRASH_SECONDS
from tensorage.gateway.rows import Wanted, file_id
from tensorage.gateway.schema import Issuer
from tensorage.gateway.store import FileStore
from tensorage.gateway.uploads import GIVEN_UP_TIMES, MOST_OPEN_STRIPES, STALLED_SECONDS
from tensorage.keyauth import SigningKey
from tensorage.ticket import SignedTicket, Stored

VALIDATOR = Hotkey.from_uri("//V")
MINERS = {key.ss58: key for key in (Hotkey.from_uri(f"//Miner/{number}") for number in range(8))}
ISSUER = Issuer(bytes(32), 1, VALIDATOR.public_key)
NOW = 1_800_000_000
LATER = NOW + 30 * 86400
SHARD = 16 * 4096


@pytest.fixture
def store(tmp_path):
    with FileStore(tmp_path / "files.sqlite", ISSUER) as store:
        yield store


def choose(taken, out, wanted):
    free = [hotkey for hotkey in MINERS if hotkey not in out and hotkey not in {p.hotkey for p in taken}]
    return [(hotkey, hotkey) for hotkey in free[:wanted]]


@dataclass
class Uploader:
    """A client, as the database sees it."""

    store: FileStore
    account: int
    k: int = 2
    m: int = 2
    key: SigningKey = field(default_factory=lambda: SigningKey(os.urandom(32)))
    roots: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def create(self):
        return self.store.create_file(self.account, self.key.public_key, self.k, self.m, LATER, NOW)

    @property
    def id(self):
        return file_id(self.key.public_key)

    def place(self, stripe=0, avoid=(), serves=lambda hotkey: True):
        return self.store.place(self.id, self.account, stripe, 16, avoid, serves, choose, NOW)

    def wanted(self, places, stripe=0):
        return [
            Wanted(p.number, p.hotkey, self.roots.setdefault((stripe, p.number), os.urandom(32)))
            for p in places
        ]

    def issue(self, wanted, stripe=0):
        return self.store.issue(self.id, self.account, stripe, 16, wanted, VALIDATOR.sign, NOW)

    def hand_in(self, signed, stripe=0, **how):
        receipts = [receipt(ticket, **how) for ticket in signed]
        return self.store.record_stored(self.id, self.account, stripe, receipts, verify, NOW)

    def stripe(self, number=0):
        self.create()
        signed = self.issue(self.wanted(self.place(number), number), number)
        self.hand_in(signed, number)
        return signed

    def complete(self, stripes=1, **changes):
        told = {"size": 1000, "stripes": stripes, "spread": bytes(32), "reader": self.key.seed, **changes}
        return self.store.complete(self.id, self.account, **told, now=NOW)


def receipt(signed: SignedTicket, *, seconds=NOW, key=None) -> Stored:
    miner = next(miner for miner in MINERS.values() if miner.public_key == signed.ticket.miner)
    return tickets.stored(signed.ticket.hash, seconds * 1000, (key or miner).sign)


def account(store, quota=1 << 30, name="alice"):
    return store.add_account(name, "key", os.urandom(32), quota, NOW).id


def used(store):
    return store.accounts()[0].used


def test_clients_that_ask_at_once_never_get_more_than_their_quota(store):
    who = account(store, quota=5 * SHARD)
    uploads = [Uploader(store, who, k=1, m=0) for _ in range(16)]
    asked = []
    for upload in uploads:
        upload.create()
        asked.append(upload.wanted(upload.place()))
    start, got = threading.Barrier(len(uploads)), []

    def ask(upload, wanted):
        start.wait()
        try:
            got.append(upload.issue(wanted))
        except RequestError as error:
            got.append(error.kind)

    threads = [threading.Thread(target=ask, args=both) for both in zip(uploads, asked, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(isinstance(item, list) for item in got) == 5
    assert got.count("forbidden") == 11
    assert used(store) == 5 * SHARD


def test_two_processes_share_the_quota_and_the_serials(store, tmp_path):
    who = account(store, quota=3 * SHARD)
    with FileStore(tmp_path / "files.sqlite", ISSUER) as other:
        first, second = Uploader(store, who), Uploader(other, who, k=1, m=0)
        for upload in (first, second):
            upload.create()
        one = second.issue(second.wanted(second.place()))
        with pytest.raises(RequestError, match="over quota"):
            first.issue(first.wanted(first.place()))
        two = first.issue(first.wanted(first.place())[:2])
    serials = [signed.ticket.serial for signed in one + two]
    assert len(set(serials)) == 3


def test_what_is_asked_again_is_answered_the_same(store):
    upload = Uploader(store, account(store))
    assert upload.create() == upload.create()
    places = upload.place()
    assert upload.place() == places
    first = upload.issue(upload.wanted(places))
    assert upload.issue(upload.wanted(places)) == first
    assert upload.hand_in(first) == upload.hand_in(first) == [0, 1, 2, 3]
    assert upload.place() == []
    assert upload.complete() == upload.complete()
    assert used(store) == 4 * SHARD
    with pytest.raises(RequestError, match="another way"):
        upload.complete(size=999)
    with pytest.raises(RequestError, match="another way"):
        Uploader(store, upload.account, k=1, m=1, key=upload.key).create()


_CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_gateway_store as t

store = t.FileStore(Path(sys.argv[2]), t.ISSUER)
upload = t.Uploader(store, 1, key=t.SigningKey(bytes.fromhex(sys.argv[3])))
places = upload.place()
calls = []

def sign(message):
    calls.append(message)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.VALIDATOR.sign(message)

plain = store._signed
def said(file, item, leaves, serial, sign):
    print(serial, flush=True)
    return plain(file, item, leaves, serial, sign)
store._signed = said
store.issue(upload.id, 1, 0, 16, upload.wanted(places), sign, t.NOW)
"""


def test_a_validator_killed_between_ticket_and_answer_owes_nothing_and_uses_no_serial_twice(store, tmp_path):
    upload = Uploader(store, account(store))
    places = (upload.create(), upload.place())[1]
    arguments = [str(Path(__file__).parent), str(store.path), upload.key.seed.hex()]
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    told = [int(line) for line in child.stdout.split()]
    assert len(told) == 3
    assert used(store) == 0
    assert upload.place() == places
    signed = upload.issue(upload.wanted(places))
    assert not {ticket.ticket.serial for ticket in signed} & set(told)
    # Killed after the tickets were written, before they left: they are there when they are asked for again.
    with FileStore(store.path, ISSUER) as again:
        assert Uploader(again, upload.account, key=upload.key).issue(upload.wanted(places)) == signed


def test_an_older_copy_of_the_database_repeats_no_serial(store, tmp_path):
    upload = Uploader(store, account(store))
    upload.create()
    places = upload.place()
    store.close()
    copy = tmp_path / "copy.sqlite"
    shutil.copy(store.path, copy)
    with FileStore(store.path, ISSUER) as newer:
        first = Uploader(newer, upload.account, key=upload.key).issue(upload.wanted(places))
    with FileStore(copy, ISSUER) as older:
        who = Uploader(older, upload.account, key=upload.key)
        second = older.issue(who.id, who.account, 0, 16, who.wanted(places), VALIDATOR.sign, NOW + 1)
    serials = {signed.ticket.serial for signed in [*first, *second]}
    assert len(serials) == 8


def test_a_ticket_is_only_for_the_place_that_is_kept(store):
    upload = Uploader(store, account(store))
    upload.create()
    places = upload.place()
    other = next(hotkey for hotkey in MINERS if hotkey not in {place.hotkey for place in places})
    for wrong in (
        Wanted(0, other, bytes(32)),
        Wanted(0, places[1].hotkey, bytes(32)),
        Wanted(9, places[0].hotkey, bytes(32)),
    ):
        with pytest.raises(RequestError, match="has no place"):
            upload.issue([wrong])
    with pytest.raises(RequestError, match="places first"):
        upload.issue([Wanted(0, places[0].hotkey, bytes(32))], stripe=1)
    assert used(store) == 0


def test_a_miner_that_failed_gives_its_place_up_with_its_quota_and_is_told(store):
    upload = Uploader(store, account(store, quota=4 * SHARD))
    upload.create()
    places = upload.place()
    signed = upload.issue(upload.wanted(places))
    upload.hand_in(signed[:2])
    failed = places[2].hotkey
    again = upload.place(avoid=[failed])
    assert [place.number for place in again] == [2, 3]
    assert failed not in {place.hotkey for place in again}
    assert used(store) == 3 * SHARD
    assert [errand.ticket for errand in store.removals(NOW)] == [signed[2].ticket.hash]
    fresh = upload.issue(upload.wanted(again))
    assert fresh[1] == signed[3]
    assert upload.hand_in([signed[2], *fresh]) == [0, 1, 2, 3]  # a late receipt is passed over
    assert used(store) == 4 * SHARD
    assert len({signed.ticket.miner for signed in [*signed[:2], *fresh]}) == 4
    # One that was stored stays where it is, whatever its client says.
    assert upload.place(avoid=list(MINERS)) == []


def test_a_client_cannot_go_on_until_it_likes_its_miners(store):
    upload = Uploader(store, account(store), k=1, m=0)
    upload.create()
    seen = []
    while places := upload.place(avoid=seen[-1:]):
        seen.append(places[0].hotkey)
    assert len(seen) <= 4
    assert upload.place() == []


def test_a_miner_is_avoided_from_the_start_only_if_the_file_has_given_it_up(store):
    upload = Uploader(store, account(store))
    upload.create()
    drawn = list(MINERS)[:4]  # as `choose` does, when nobody is out
    assert [place.hotkey for place in upload.place(0, avoid=drawn)] == drawn
    failed = drawn[1]
    assert failed not in {place.hotkey for place in upload.place(0, avoid=[failed])}
    assert [place.hotkey for place in upload.place(1, avoid=drawn)] == [
        hotkey for hotkey in MINERS if hotkey != failed
    ][:4]


def test_a_client_that_draws_miners_and_brings_nothing_gets_no_more_of_them(store, monkeypatch):
    monkeypatch.setattr("tensorage.gateway.uploads.DRAWS_IN_VAIN", 12)
    who = account(store)
    for _ in range(3):
        upload = Uploader(store, who)
        upload.create()
        upload.place()
        store.remove_file(upload.id, who, NOW)
    with pytest.raises(RequestError, match="not used"):
        upload = Uploader(store, who)
        upload.create()
        upload.place()
    # Whoever brings its shards goes on for ever.
    honest = account(store, name="bob")
    for _ in range(6):
        Uploader(store, honest).stripe()


def test_tickets_that_are_given_up_again_and_again_are_bounded_by_the_quota(store, monkeypatch):
    monkeypatch.setattr("tensorage.gateway.uploads.GIVEN_UP_BYTES", 0)
    upload = Uploader(store, account(store, quota=4 * SHARD))
    upload.create()
    miner = upload.place()[0].hotkey
    good = 0
    with pytest.raises(RequestError, match="given up"):
        for _ in range(100):
            upload.issue([Wanted(0, miner, os.urandom(32))])
            good += 1
    assert used(store) == SHARD
    assert good == 1 + GIVEN_UP_TIMES * 4  # of which one counts as used


def test_so_are_uploads_that_are_dropped_and_files_that_are_removed(store, monkeypatch):
    monkeypatch.setattr("tensorage.gateway.uploads.GIVEN_UP_BYTES", 0)
    who = account(store, quota=4 * SHARD)
    for number in range(GIVEN_UP_TIMES):
        upload = Uploader(store, who)
        upload.stripe()
        if number % 2:
            upload.complete()
        store.remove_file(upload.id, who, NOW)
        store.expire(NOW + TRASH_SECONDS)
        assert used(store) == 0
    Uploader(store, who).stripe()  # the last that is given up fits exactly
    store.remove_file(store.files(who, 0, 1)[0][0].id, who, NOW)
    with pytest.raises(RequestError, match="given up"):
        Uploader(store, who).stripe()
    store.expire(LATER + 86400)
    assert store._db.execute("SELECT count(*) FROM given_up").fetchone()[0] == 0


def test_what_a_repair_replaces_is_not_given_up_by_its_client(store):
    upload = Uploader(store, account(store))
    lost = upload.stripe()[1]
    upload.complete()
    store.mark_lost(lost.ticket.hash, "gone", NOW)
    wanted = Wanted(1, list(MINERS)[5], os.urandom(32))
    signed = store.issue_repair(upload.id, 0, 16, wanted, "coldkey", VALIDATOR.sign, NOW)
    store.replace_shard(upload.id, 0, 1, signed, receipt(signed), NOW)
    assert store._db.execute("SELECT count(*) FROM given_up").fetchone()[0] == 0


def test_stripes_that_wait_for_shards_are_bounded(store):
    upload = Uploader(store, account(store), k=1, m=0)
    upload.create()
    for stripe in range(MOST_OPEN_STRIPES):
        upload.place(stripe)
    with pytest.raises(RequestError, match="store those first"):
        upload.place(MOST_OPEN_STRIPES)
    upload.hand_in(upload.issue(upload.wanted(upload.place(7), 7), 7), 7)
    assert upload.place(MOST_OPEN_STRIPES)


def test_receipts_of_others_of_another_time_or_of_no_ticket_are_refused(store):
    upload = Uploader(store, account(store))
    upload.create()
    signed = upload.issue(upload.wanted(upload.place()))
    other = next(miner for miner in MINERS.values() if miner.public_key != signed[0].ticket.miner)
    for how in ({"key": other}, {"seconds": NOW - 3600}, {"seconds": NOW + 3600}):
        with pytest.raises(ProofError):
            upload.hand_in(signed[:1], **how)
    stranger = Uploader(store, upload.account)
    stranger.create()
    foreign = stranger.issue(stranger.wanted(stranger.place()))
    with pytest.raises(ProofError, match="not of stripe"):
        upload.hand_in(foreign)
    assert upload.hand_in(signed[1:2]) == [1]


def test_a_file_is_whole_only_with_enough_shards_in_each_stripe(store):
    upload = Uploader(store, account(store))
    upload.stripe(0)
    signed = upload.issue(upload.wanted(upload.place(1), 1), 1)
    upload.hand_in(signed[:1], 1)
    with pytest.raises(RequestError, match="stripe 1 has 1 stored shards, and needs 2"):
        upload.complete(2)
    with pytest.raises(RequestError, match="not each of 1"):
        upload.complete(1)
    with pytest.raises(RequestError, match="not each of 3"):
        upload.complete(3)
    upload.hand_in(signed[1:2], 1)
    with pytest.raises(RequestError, match="do not fit"):
        upload.complete(2, size=4 * SHARD + 1)
    with pytest.raises(RequestError, match="access key"):
        upload.complete(2, reader=bytes(32))
    assert upload.complete(2).state == "stored"
    assert [stripe.missing for stripe in store.stripes_to_repair()] == [[2, 3]]
    assert {errand.ticket for errand in store.removals(NOW)} == {t.ticket.hash for t in signed[2:]}
    assert used(store) == 6 * SHARD
    with pytest.raises(RequestError, match="no shards any more"):
        upload.place(2)


def test_another_account_has_no_part_in_a_file(store):
    upload = Uploader(store, account(store))
    signed = upload.stripe()
    thief = account(store, name="mallory")
    for attempt in (
        lambda: store.place(upload.id, thief, 0, 16, (), lambda hotkey: True, choose, NOW),
        lambda: store.issue(upload.id, thief, 0, 16, [], VALIDATOR.sign, NOW),
        lambda: store.record_stored(upload.id, thief, 0, [receipt(signed[0])], verify, NOW),
        lambda: store.complete(upload.id, thief, 1, 1, bytes(32), upload.key.seed, NOW),
        lambda: store.remove_file(upload.id, thief, NOW),
        lambda: store.restore_file(upload.id, thief, NOW),
    ):
        with pytest.raises(RequestError, match="there is no file"):
            attempt()
    with pytest.raises(RequestError, match="another way"):
        store.create_file(thief, upload.key.public_key, 2, 2, LATER, NOW)
    assert store.files(thief, 0, 10) == ([], None)


def test_a_removed_file_comes_back_for_seven_days_and_its_miners_are_told_of_both(store):
    upload = Uploader(store, account(store))
    signed = {ticket.ticket.hash for ticket in upload.stripe()}
    upload.complete()
    removed = store.remove_file(upload.id, upload.account, NOW)
    assert (removed.state, removed.until) == ("trash", NOW + TRASH_SECONDS)
    assert store.remove_file(upload.id, upload.account, NOW + 5) == removed
    assert {errand.ticket for errand in store.removals(NOW)} == signed
    assert used(store) == 4 * SHARD  # its miners still keep it
    store.told_in_vain(signed, NOW)
    assert store.removals(NOW) == []
    told = {errand.ticket for errand in store.removals(NOW + 60)}
    assert told == signed
    for ticket in list(signed)[:3]:
        store.removed(ticket, NOW)
    assert store.restore_file(upload.id, upload.account, NOW + 100).state == "stored"
    assert {errand.ticket for errand in store.restores(NOW + 100)} == set(list(signed)[:3])
    assert store.removals(NOW + 100) == []
    for ticket in list(signed)[:3]:
        store.restored(ticket)
    assert store.restores(NOW + 100) == []

    removed = store.remove_file(upload.id, upload.account, NOW + 200)
    for ticket in list(signed)[:3]:
        store.removed(ticket, NOW + 200)
    assert store.expire(NOW + 200 + TRASH_SECONDS - 1) == 0
    assert store.expire(NOW + 200 + TRASH_SECONDS) == 1
    assert store.file(upload.id) is None
    assert used(store) == 0
    assert [errand.ticket for errand in store.removals(LATER - 1)] == list(signed)[3:]
    with pytest.raises(RequestError, match="there is no file"):
        store.restore_file(upload.id, upload.account, NOW + 200 + TRASH_SECONDS)


def test_an_upload_without_progress_is_dropped_and_its_miners_told(store):
    upload = Uploader(store, account(store))
    signed = upload.stripe()
    live = Uploader(store, upload.account)
    live.create()
    assert store.expire(NOW + STALLED_SECONDS - 1) == 0
    assert store.expire(NOW + STALLED_SECONDS) == 2
    assert store.files(upload.account, 0, 10) == ([], None)
    assert {errand.ticket for errand in store.removals(NOW + STALLED_SECONDS)} == {
        ticket.ticket.hash for ticket in signed
    }
    with pytest.raises(RequestError, match="begin with a new key"):
        upload.create()
    assert used(store) == 0


def test_what_expires_ends_without_a_word_and_leaves_no_rows(store):
    upload = Uploader(store, account(store))
    upload.stripe()
    upload.complete()
    assert store.expire(LATER - 1) == 0
    assert store.expire(LATER) == 1
    assert store.removals(LATER) == []
    assert used(store) == 0
    store.expire(LATER + 30 * 86400)
    assert all(
        store._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0
        for table in ("files", "stripes", "shards", "places", "replaced")
    )


def test_a_revoked_account_is_unknown_at_once_and_its_name_is_free(store):
    key = os.urandom(32)
    made = store.add_account("alice", "key", key, 1000, NOW)
    assert store.account_of("key", key) == made
    assert store.account_of("hotkey", key) is None
    with pytest.raises(UsageError, match="already"):
        store.add_account("alice", "key", os.urandom(32), 1000, NOW)
    with pytest.raises(UsageError, match="already"):
        store.add_account("bob", "key", key, 1000, NOW)
    with FileStore(store.path, ISSUER) as other:
        other.revoke("alice", NOW)
    assert store.account_of("key", key) is None
    with pytest.raises(UsageError, match="no account"):
        store.revoke("alice", NOW)
    assert store.add_account("alice", "key", os.urandom(32), 1000, NOW).id != made.id


def test_the_database_of_another_validator_or_version_is_refused(store, tmp_path):
    with pytest.raises(UsageError, match="not of"):
        FileStore(store.path, Issuer(bytes(32), 2, VALIDATOR.public_key))
    store._db.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="version 99"):
        FileStore(store.path, ISSUER)
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all" * 100)
    with pytest.raises(UsageError, match="cannot be opened"):
        FileStore(damaged, ISSUER)
