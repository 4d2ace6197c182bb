"""The ledger: what is on the disk after a kill, and which files are refused."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.encoding import ZERO_HASH, sha256
from tensorage.errors import ProofError, RequestError, StorageError, UsageError
from tensorage.hashchain import check_chain
from tensorage.receipts import NO_SECTOR, Receipt, Verdict
from tensorage.transport.axon import Call
from tensorage.validator import export, ledger, schema, scoring, standing
from tensorage.validator.desk import MOST_WAITING, ReceiptDesk
from tensorage.validator.judge import Attempt, Judgement
from tensorage.validator.ledger import (
    Evidence,
    LedgerIdentity,
    delete_ledger,
    open_ledger,
)
from tensorage.validator.standing import Miner
from tensorage.validator.status import read_status

KEY = Hotkey.from_uri("//Ledger")
MINERS = [Hotkey.from_uri(f"//Ledger/{number}") for number in range(3)]
IDENTITY = LedgerIdentity(sha256(b"genesis"), 7, KEY.public_key)
PASS = Attempt(Verdict.PASSED, "", "8 leaves in 3 ms", 0.003, leaves=8)


def draft(miner: Miner, now: int, verdict: Verdict = Verdict.PASSED, evidence: bytes = b"") -> Receipt:
    return Receipt(
        genesis=IDENTITY.genesis,
        netuid=IDENTITY.netuid,
        validator=IDENTITY.hotkey,
        seq=1,
        prev_hash=ZERO_HASH,
        unix_ms=now,
        miner=miner.public_key,
        commitment_hash=ZERO_HASH,
        block_number=now,
        block_hash=sha256(b"block"),
        round=now,
        hops=8,
        audited_sector=NO_SECTOR,
        elapsed_ms=3,
        verdict=verdict,
        reason="as it was",
        evidence_hash=sha256(evidence) if evidence else ZERO_HASH,
    )


def work_for_ever(path: Path) -> None:
    """Rounds of three miners each, as fast as the disk takes them; what the child process of a test runs."""
    with closing(open_ledger(path, IDENTITY)) as book:
        miners = book.miners() or {key.ss58: Miner(key.ss58, key.public_key, 1, 1) for key in MINERS}
        while True:
            now = book.begin_round(1)
            for hotkey, miner in miners.items():
                after = standing.judged(miner, Judgement(PASS), now, 4.0)
                book.record(draft(miner, now), after, KEY.sign)
                miners[hotkey] = after
            print(now, flush=True)


def test_after_a_kill_at_any_instant_every_receipt_has_had_its_effect_and_no_other(tmp_path):
    path = tmp_path / "validator.sqlite"
    here = Path(__file__)
    command = f"import sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem} as t; "
    command += f"from pathlib import Path; t.work_for_ever(Path({str(path)!r}))"
    seen = 0
    random.seed(7)
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline()
        time.sleep(random.uniform(0, 0.3))
        os.kill(child.pid, signal.SIGKILL)
        told = [int(line) for line in child.stdout.read().split()]
        child.wait()
        with closing(open_ledger(path, IDENTITY)) as book:
            pages, start = [], 0
            while start is not None:
                page, start = book.receipts(start, 256)
                pages += page
            last = check_chain(pages, KEY.public_key, verify)
            assert last is not None
            assert last.seq == len(pages) > seen
            seen = len(pages)
            for miner in book.miners().values():
                mine = [receipt for receipt, _ in pages if receipt.miner == miner.public_key]
                assert miner.counts == {Verdict.PASSED: len(mine)}
                assert miner.standing.round == mine[-1].round
            assert len({(receipt.miner, receipt.round) for receipt, _ in pages}) == len(pages)
            assert not told or book.last_round() >= told[-1]


def test_a_miner_gets_its_own_receipts_page_by_page(tmp_path):
    with closing(open_ledger(tmp_path / "v.sqlite", IDENTITY)) as book:
        miners = [Miner(key.ss58, key.public_key, uid, 1) for uid, key in enumerate(MINERS)]
        for now in range(1, 6):
            for miner in miners:
                book.record(draft(miner, now), miner, KEY.sign)
        page, following = book.receipts(0, 2, miners[1].public_key)
        assert [receipt.seq for receipt, _ in page] == [2, 5]
        assert following == 8
        page, following = book.receipts(8, 100, miners[1].public_key)
        assert [receipt.seq for receipt, _ in page] == [8, 11, 14]
        assert following is None
        assert book.receipts(2**64 - 1, 10)[0] == []


async def test_miners_that_ask_for_receipts_wait_for_no_round_and_no_round_for_them(tmp_path):
    with closing(open_ledger(tmp_path / "v.sqlite", IDENTITY)) as book:
        miner = Miner(MINERS[0].ss58, MINERS[0].public_key, 1, 1)
        for now in range(1, 6):
            book.record(draft(miner, now), miner, KEY.sign)
        desk = ReceiptDesk(book.path)
        call = Call(miner, {}, {"from": "2", "limit": "2"}, b"")
        with book._transaction():  # a round is being written
            page = await asyncio.wait_for(desk.answer(call), 20)
        assert [receipt.seq for receipt, _ in page.signed()] == [2, 3]
        assert page.next == 4
        asked = await asyncio.gather(*(desk.answer(call) for _ in range(200)), return_exceptions=True)
        refused = [error for error in asked if isinstance(error, RequestError)]
        assert len(refused) == 200 - MOST_WAITING
        assert {error.kind for error in refused} == {"rate_limited"}
        desk.close()


def test_two_processes_cannot_write_one_chain_of_receipts(tmp_path):
    path = tmp_path / "v.sqlite"
    with closing(open_ledger(path, IDENTITY)):
        with pytest.raises(UsageError, match="another process has the ledger"):
            open_ledger(path, IDENTITY)
        with pytest.raises(UsageError, match="another process"):
            delete_ledger(path)
        assert read_status(path) == []  # reading is free
    open_ledger(path, IDENTITY).close()


def test_a_ledger_of_another_identity_or_a_newer_version_or_no_database_is_refused(tmp_path):
    path = tmp_path / "v.sqlite"
    open_ledger(path, IDENTITY).close()
    other = LedgerIdentity(IDENTITY.genesis, 8, IDENTITY.hotkey)
    with pytest.raises(UsageError, match=r"netuid 7, not of 8.*--restart"):
        open_ledger(path, other)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    for use in (lambda: open_ledger(path, IDENTITY), lambda: read_status(path)):
        with pytest.raises(UsageError, match=r"version 99.*Update tensorage"):
            use()
    delete_ledger(path)
    open_ledger(path, IDENTITY).close()
    delete_ledger(path)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(UsageError, match="cannot be opened as a ledger"):
        open_ledger(path, IDENTITY)
    with pytest.raises(UsageError, match="no ledger"):
        read_status(tmp_path / "nothing.sqlite")


def test_a_ledger_of_an_older_version_becomes_one_of_this_with_all_that_it_held(tmp_path):
    old, new = tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    miner = Miner(MINERS[0].ss58, MINERS[0].public_key, 1, 1, listing=((3, sha256(b"root")),))
    miner = replace(miner, credited=frozenset({3}))
    with closing(open_ledger(new, IDENTITY)) as book:
        book.record(draft(miner, 1), miner, KEY.sign)
    with closing(sqlite3.connect(old)) as db, closing(sqlite3.connect(new)) as made:
        db.executescript(schema.MIGRATIONS[0] + ";PRAGMA user_version = 1")
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
            rows = made.execute(f"SELECT {columns} FROM {table}").fetchall()
            marks = ", ".join("?" * (columns.count(",") + 1))
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        db.commit()
    with closing(open_ledger(old, IDENTITY)) as book:
        assert book.miners() == {miner.hotkey: miner}
        assert [receipt.seq for receipt, _ in book.receipts(0, 10)[0]] == [1]
        assert book.slots(miner.hotkey) == []


def test_a_path_that_cannot_be_written_is_told_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--db_root_path"):
        open_ledger(tmp_path / "file" / "v.sqlite", IDENTITY)


def test_a_full_disk_moves_nothing_and_the_next_receipt_follows_the_last(tmp_path):
    path = tmp_path / "v.sqlite"
    with closing(open_ledger(path, IDENTITY)) as book:
        miner = Miner(MINERS[0].ss58, MINERS[0].public_key, 1, 1)
        book.record(draft(miner, 1), miner, KEY.sign)
        pages = book._db.execute("PRAGMA page_count").fetchone()[0]
        book._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "disk is full"
        big = Evidence.of("answer", bytes(1 << 20))
        after = standing.judged(miner, Judgement(PASS), 2, 4.0)
        with pytest.raises(StorageError, match=r"full.*[Ss]pace"):
            book.record(draft(miner, 2), after, KEY.sign, evidence=[big])
        assert [receipt.seq for receipt, _ in book.receipts(0, 10)[0]] == [1]
        assert book.miners()[miner.hotkey].counts == {}
        book._db.execute("PRAGMA max_page_count = 100000")
        assert book.record(draft(miner, 2), after, KEY.sign, evidence=[big]).seq == 2


def test_evidence_and_receipts_are_bounded_and_an_export_says_where_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "EVIDENCE_BYTES_KEPT", 10_000)
    monkeypatch.setattr(ledger, "RECEIPTS_KEPT", 100)
    path = tmp_path / "v.sqlite"
    with closing(open_ledger(path, IDENTITY)) as book:
        miner = Miner(MINERS[0].ss58, MINERS[0].public_key, 1, 1)
        for now in range(1, 257):
            proof = Evidence.of("answer", now.to_bytes(2, "big") * 500)
            book.record(draft(miner, now, Verdict.WRONG, proof.data), miner, KEY.sign, evidence=[proof])
        size = book._db.execute("SELECT sum(length(data)) FROM evidence").fetchone()[0]
        assert 9_000 <= size <= 10_000
        assert book.evidence(sha256((256).to_bytes(2, "big") * 500)) is not None
    found = export.check(export.export(path), verify)
    assert (found.receipts, found.first, found.last) == (100, 157, 256)


@pytest.mark.parametrize("store", [True, False])
def test_scores_that_are_not_stored_are_not_there_at_the_next_start_but_receipts_are(tmp_path, store):
    path = tmp_path / "v.sqlite"
    with closing(open_ledger(path, IDENTITY, store_scores=store)) as book:
        miner = Miner(MINERS[0].ss58, MINERS[0].public_key, 1, 1)
        after = standing.judged(miner, Judgement(Attempt(Verdict.WRONG, "answer", "no")), 1, 4.0)
        book.record(draft(miner, 1, Verdict.WRONG), after, KEY.sign)
    with closing(open_ledger(path, IDENTITY)) as book:
        found = book.miners()[miner.hotkey]
        assert found.standing.integrity == (1 - scoring.WRONG_LOSS if store else 1.0)
        assert len(book.receipts(0, 10)[0]) == 1


def exported(tmp_path: Path) -> dict:
    path = tmp_path / "v.sqlite"
    with closing(open_ledger(path, IDENTITY)) as book:
        for now in range(1, 4):
            for uid, key in enumerate(MINERS[:2]):
                miner = Miner(key.ss58, key.public_key, uid, 1)
                book.record(draft(miner, now), miner, KEY.sign)
    return export.export(path)


def test_an_altered_reordered_or_shortened_export_is_found_out(tmp_path):
    document = exported(tmp_path)
    assert export.check(document, verify).links == 5
    receipts = document["receipts"]
    altered = [{**receipts[0], "verdict": "wrong"}, *receipts[1:]]
    with pytest.raises(ProofError, match="states a hash"):
        export.check({"receipts": altered}, verify)
    with pytest.raises(ProofError, match="stands after"):
        export.check({"receipts": [receipts[1], receipts[0]]}, verify)
    with pytest.raises(ProofError, match="where 3 comes next"):
        export.check({"receipts": [*receipts[:2], *receipts[3:]]}, verify)
    with pytest.raises(ProofError, match="not signed"):
        forged = {**receipts[0], "signature": receipts[1]["signature"]}
        export.check({"receipts": [forged]}, verify)


def test_one_miners_receipts_have_gaps_and_verify(tmp_path):
    exported(tmp_path)
    document = export.export(tmp_path / "v.sqlite", miner=MINERS[0].public_key)
    found = export.check(document, verify)
    assert (found.receipts, found.gaps, found.links) == (3, 2, 0)


@pytest.mark.parametrize("document", [[], {}, {"receipts": 3}])
def test_what_is_no_file_of_receipts_is_told(document):
    with pytest.raises(UsageError, match="no list of receipts"):
        export.check(document, verify)


@pytest.mark.parametrize(
    "document",
    [
        {"receipts": [3]},
        {"receipts": [{}]},
        {"receipts": [], "evidence": 3},
    ],
)
def test_what_is_no_receipt_is_told(document):
    if document["receipts"]:
        with pytest.raises(ProofError):
            export.check(document, verify)
    else:
        assert export.check(document, verify).receipts == 0
