"""The owner's store: one content for each seq, tokens, payments, statements."""

import sqlite3
import threading
from types import SimpleNamespace

import pytest

from tensorage.dataset import versions, wire
from tensorage.dataset.entry import HEAD_SECONDS
from tensorage.dataset.identity import EthSigner, verify
from tensorage.dataset.members import KEPT_DOWNLOADS, Denied
from tensorage.dataset.sales import OfferTerms
from tensorage.dataset.signing import make_key, read_key
from tensorage.dataset.store import Store
from tensorage.errors import RequestError, StorageError, UsageError

ALICE, BOB, CAROL = (EthSigner(bytes([number]) * 32) for number in (1, 2, 3))
NOW = 1_800_000_000


class Recorder:
    """A signer that notes what it signs, and dies before or after it does."""

    def __init__(self, inner, dies=""):
        self.owner = inner.owner
        self.inner = inner
        self.dies = dies
        self.signed = []

    def sign(self, digest):
        if self.dies == "before":
            raise KeyboardInterrupt
        self.signed.append(digest)
        if self.dies == "after":
            raise KeyboardInterrupt
        return self.inner.sign(digest)


@pytest.fixture
def world(tmp_path):
    bundles = []
    for number in (0, 1):
        path = tmp_path / f"bundle{number}"
        path.mkdir()
        (path / "sft.jsonl").write_bytes(b"%d\n" % number)
        (path / "manifest.json").write_text('{"files": ["sft.jsonl"]}')
        bundles.append(path)
    clock = SimpleNamespace(now=NOW)
    with Store(tmp_path / "home", clock=lambda: clock.now) as store:
        store.create("chats", ALICE.owner)
        one, two = (store.ingest(path) for path in bundles)
        yield SimpleNamespace(store=store, one=one, two=two, clock=clock, home=tmp_path / "home")


@pytest.mark.parametrize("dies", ["before", "after"])
def test_one_seq_is_never_signed_for_two_contents(world, dies):
    store, dying = world.store, Recorder(ALICE, dies)
    with pytest.raises(KeyboardInterrupt):
        store.append("chats", world.one, dying, NOW)
    honest = Recorder(ALICE)
    with pytest.raises(UsageError, match=r"version 1 .* begun .* no version is signed for two contents"):
        store.append("chats", world.two, honest, NOW)
    assert honest.signed == [] and store.log("chats").entries == ()
    with pytest.raises(UsageError, match="signed by"):
        store.create("chats", BOB.owner)  # an empty dataset, but a seq of it is promised
    signed = store.append("chats", world.one, honest, NOW + 60)
    assert signed.entry.time == NOW
    assert {signed.entry.hash} == {*dying.signed, *honest.signed}
    assert store.unfinished("chats") is None and store.finish("chats", ALICE) is None
    assert store.append("chats", world.two, honest, NOW + 61).entry.seq == 2


def test_what_was_cut_off_is_finished_as_it_was_begun(world):
    store = world.store
    with pytest.raises(KeyboardInterrupt):
        store.append("chats", world.one, Recorder(ALICE, "before"), NOW)
    assert store.unfinished("chats").seq == 1
    with pytest.raises(UsageError, match="signed by"):
        store.finish("chats", BOB)
    signed = store.finish("chats", ALICE)
    assert (signed.entry.seq, signed.entry.time) == (1, NOW)
    assert store.artifact("chats", 1).name == "sft.jsonl"


@pytest.mark.parametrize("dies", ["before", "after"])
def test_one_key_is_handed_on_to_one_other_only(world, dies):
    store = world.store
    store.append("chats", world.one, ALICE, NOW)
    dying = Recorder(ALICE, dies)
    with pytest.raises(KeyboardInterrupt):
        store.rotate("chats", dying, BOB, NOW + 1)
    with pytest.raises(UsageError, match=rf"about to hand .* {BOB.owner}"):
        store.rotate("chats", ALICE, CAROL, NOW + 2)
    with pytest.raises(UsageError, match="Finish that first"):
        store.append("chats", world.two, ALICE, NOW + 2)
    done = store.rotate("chats", ALICE, BOB, NOW + 3)
    assert done.rotation.time == NOW + 1
    assert dying.signed in ([], [done.rotation.hash])
    assert store.rotate("chats", ALICE, BOB, NOW + 4) == done
    with pytest.raises(UsageError, match="signed by"):
        store.append("chats", world.two, ALICE, NOW + 5)
    with pytest.raises(UsageError, match="has been a key"):
        store.rotate("chats", BOB, ALICE, NOW + 5)
    assert store.append("chats", world.two, BOB, NOW + 5).entry.seq == 2


def test_an_unfinished_version_is_not_left_behind_by_a_rotation(world):
    world.store.append("chats", world.one, ALICE, NOW)
    with pytest.raises(KeyboardInterrupt):
        world.store.append("chats", world.two, Recorder(ALICE, "before"), NOW)
    with pytest.raises(UsageError, match="--finish"):
        world.store.rotate("chats", ALICE, BOB, NOW + 1)


def test_a_log_that_was_edited_is_neither_extended_nor_served(world):
    store = world.store
    store.append("chats", world.one, ALICE, NOW)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE entries SET size = size + 1")
    db.close()
    with pytest.raises(StorageError, match='refusing to extend dataset "chats": existing version log fails'):
        store.append("chats", world.two, ALICE, NOW)
    with pytest.raises(StorageError, match='refusing to serve dataset "chats"'):
        store.verified_log("chats", "serve")


def test_a_log_whose_end_was_cut_off_in_the_database_is_not_gone_on_with(world):
    store = world.store
    for _ in range(3):
        store.append("chats", world.one, ALICE, NOW)
    with sqlite3.connect(store.path) as db:
        db.execute("DELETE FROM entries WHERE seq > 1")
    db.close()
    with pytest.raises(StorageError, match="ends at version 1, version 3 was signed"):
        store.verified_log("chats", "serve")
    signer = Recorder(ALICE)
    with pytest.raises(StorageError, match="refusing to extend"):
        store.append("chats", world.two, signer, NOW)
    assert signer.signed == []


def test_a_signer_whose_signatures_are_not_its_own_records_nothing(world):
    liar = SimpleNamespace(owner=ALICE.owner, sign=BOB.sign)
    with pytest.raises(StorageError, match="not its own"):
        world.store.append("chats", world.one, liar, NOW)
    assert world.store.log("chats").entries == ()


def test_a_head_statement_is_signed_anew_when_half_its_day_is_over_or_a_version_comes(world):
    store = world.store
    store.append("chats", world.one, ALICE, NOW)
    assert store.head("chats") is None
    first = store.sign_head("chats", ALICE, NOW)
    assert verify(ALICE.owner, first.head.hash, first.signature)
    assert store.sign_head("chats", ALICE, NOW + HEAD_SECONDS // 2) == first == store.head("chats")
    later = store.sign_head("chats", ALICE, NOW + HEAD_SECONDS // 2 + 1)
    assert later.head.expires == later.head.issued + HEAD_SECONDS > first.head.expires
    assert store.sign_head("chats", ALICE, NOW).head.issued == NOW  # the clock was set back
    store.append("chats", world.two, ALICE, NOW)
    assert store.head("chats") is None and store.sign_head("chats", ALICE, NOW).head.seq == 2
    with pytest.raises(UsageError, match="signed by"):
        store.sign_head("chats", BOB, NOW)


def test_a_token_opens_its_versions_of_its_dataset_until_it_expires_or_is_revoked(world):
    store = world.store
    store.create("mails", ALICE.owner)
    token = store.mint("chats", label="alice", max_version=2, expires=NOW + 10)

    def denied(raw, id, version, now):
        with pytest.raises(Denied) as error:
            store.check_token(raw, id, version, now)
        assert "tensorage-member" not in str(error.value) and error.value.http_status == 403
        return error.value.kind

    member = store.check_token(token, "chats", 2, NOW)
    assert store.check_token(token, "chats", None, NOW) == member
    assert {denied(token, "chats", version, NOW) for version in (0, -1, 3)} == {"version_not_entitled"}
    assert denied(token, "mails", 1, NOW) == "not_a_member"
    for stranger in ("", "x" * 10**6, token[:-1], token.upper(), token + "\n", token[:-64] + "0" * 64, "é"):
        assert denied(stranger, "chats", 1, NOW) == "not_a_member"
    assert denied(token, "chats", 1, NOW + 10) == "token_expired"
    assert store.grant("chats", "alice", 5).max_version == 5
    assert store.check_token(token, "chats", 5, NOW).number == member.number
    store.revoke("chats", member.hash.hex()[:8])
    assert denied(token, "chats", 1, NOW) == denied(token, "chats", 1, NOW + 10) == "token_revoked"
    with Store(world.home, clock=lambda: NOW) as again:
        assert again.members("chats")[0].revoked == NOW


def test_a_label_that_somebody_chose_does_not_lead_to_another_member(world):
    store = world.store
    victim = store.check_token(store.mint("chats", label="v", max_version=1), "chats", 1, NOW)
    store.mint("chats", label=victim.hash.hex()[:16], max_version=1)
    with pytest.raises(UsageError, match="means 2 members"):
        store.revoke("chats", victim.hash.hex()[:16])
    assert store.revoke("chats", victim.hash.hex()).number == victim.number
    with pytest.raises(UsageError, match="has no member"):
        store.revoke("chats", victim.hash.hex()[:7])


def test_ranges_that_go_on_are_one_download_and_no_member_fills_the_disk(world):
    store = world.store
    member = store.check_token(store.mint("chats", label="a", max_version=1), "chats", 1, NOW)
    for start in (0, 10, 20):
        store.log_download(member, 1, start, start + 10, NOW + start)
    store.log_download(member, 2, 30, 40, NOW)
    found = [(row.version, row.start, row.stop) for row in store.downloads("chats")]
    assert found == [(1, 0, 30), (2, 30, 40)]
    for _ in range(KEPT_DOWNLOADS + 5):
        store.log_download(member, 1, 7, 8, NOW)
    assert len(store.downloads("chats")) == KEPT_DOWNLOADS
    assert store.members("chats")[0].requests == KEPT_DOWNLOADS + 9


PAYMENT = {"network": "eip155:1", "asset": "0xa", "amount": 2**70, "pay_to": "0xb"}


def test_a_payment_buys_one_token_however_often_it_is_shown(world):
    store = world.store
    with pytest.raises(StorageError, match="never begun"):
        store.mint_paid(b"p", "chats", 1, "0xc", "eip155:1", 2**70, "0xd")
    assert store.begin_payment(b"p", "chats", 1, **PAYMENT) == store.begin_payment(
        b"p", "chats", 1, **PAYMENT
    )
    assert store.paid_token(b"p") is None
    tokens = set()

    def mint():
        tokens.add(store.mint_paid(b"p", "chats", 1, "0xc", "eip155:1", 2**70, "0xd"))

    threads = [threading.Thread(target=mint) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Store(world.home, clock=lambda: NOW + 9) as again:
        tokens.add(again.mint_paid(b"p", "chats", 1, None, "eip155:1", 2**70, None))
        tokens.add(again.paid_token(b"p"))
    (token,) = tokens
    (member,) = store.members("chats")
    assert (member.label, member.max_version, member.paid, member.expires) == ("paid", 1, 2**70, None)
    assert store.check_token(token, "chats", 1, NOW) == member
    paid = store.payment(b"p")
    assert (paid.state, paid.payer, paid.transaction, paid.amount) == ("minted", "0xc", "0xd", 2**70)
    for id, version in (("chats", 2), ("mails", 1)):
        with pytest.raises(RequestError, match="made for") as conflict:
            store.mint_paid(b"p", id, version, None, "eip155:1", 2**70, None)
        assert conflict.value.kind == "conflict"
    store.drop_payment(b"p")
    assert store.payment(b"p") == paid


def test_a_payment_whose_secret_is_gone_is_not_given_a_second_token(world):
    store = world.store
    store.begin_payment(b"p", "chats", 1, **PAYMENT)
    store.mint_paid(b"p", "chats", 1, None, "eip155:1", 1, None)
    (world.home / "token.secret").unlink()
    with pytest.raises(StorageError, match=r"token\.secret"):
        store.mint_paid(b"p", "chats", 1, None, "eip155:1", 1, None)
    assert len(store.members("chats")) == 1


def test_an_offer_is_kept_and_taken_back(world):
    terms = OfferTerms("eip155:1", "USDC", "0.01", "mb", "0xb", "https://f")
    world.store.set_offer("chats", terms)
    assert world.store.offer("chats") == terms
    world.store.set_offer("chats", None)
    assert world.store.offer("chats") is None
    with pytest.raises(UsageError, match="not found"):
        world.store.set_offer("nope", terms)


def test_a_home_of_a_later_version_or_that_is_no_database_is_refused(world, tmp_path):
    world.store._writer.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="is of version 99"):
        Store(world.home)
    home = tmp_path / "other"
    home.mkdir()
    (home / "datasets.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(UsageError, match="cannot be used"):
        Store(home)
    (tmp_path / "file").write_text("")
    with pytest.raises((UsageError, StorageError)):
        Store(tmp_path / "file" / "home")


def test_a_new_home_may_be_opened_by_many_at_once(tmp_path):
    for turn in range(5):
        gate, failures = threading.Barrier(8), []

        def start(turn=turn, gate=gate, failures=failures):
            gate.wait()
            try:
                Store(tmp_path / str(turn)).close()
            except (UsageError, StorageError) as error:
                failures.append(error)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_a_log_that_buyers_would_not_read_any_more_is_not_extended(world, monkeypatch):
    monkeypatch.setattr(versions, "_FEW", 1)
    world.store.append("chats", world.one, ALICE, NOW)
    world.store.append("chats", world.two, ALICE, NOW)
    monkeypatch.setattr(wire, "MAX_LOG_BYTES", versions._ROOM + 1000)
    with pytest.raises(UsageError, match="buyers read no more"):
        world.store.append("chats", world.one, ALICE, NOW)
    assert world.store.unfinished("chats") is None


def test_a_key_that_is_there_is_never_written_over(tmp_path):
    path = tmp_path / "keys" / "owner.key"
    make_key(path, lambda size: b"\1" * size)
    make_key(path, lambda size: b"\2" * size)
    assert read_key(path).owner == ALICE.owner
    assert path.stat().st_mode & 0o777 == 0o600 and list(path.parent.iterdir()) == [path]
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_key(link).owner == ALICE.owner
