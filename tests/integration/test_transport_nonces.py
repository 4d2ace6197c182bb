"""The nonce store: once is once, for every process, over restarts, and in bounded space."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tensorage.chain.auth import ALLOWED_SKEW, MAX_AGE
from tensorage.errors import RequestError, StorageError, UsageError
from tensorage.transport.nonces import SqliteNonceStore

NOW = 1_752_076_800_000_000_000


def _accepted(path: Path, nonces: range) -> list[int]:
    store = SqliteNonceStore(path, clock_ns=lambda: NOW, wait_seconds=30)
    accepted = [nonce for nonce in nonces if store.check_and_store("5Alice", NOW + nonce)]
    store.close()
    return accepted


def test_a_nonce_is_accepted_once_by_processes_that_start_together(tmp_path):
    path = tmp_path / "nonces.sqlite"
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(_accepted, [path] * 3, [range(200)] * 3))
    assert sorted(nonce for accepted in results for nonce in accepted) == list(range(200))


def test_a_nonce_is_remembered_over_a_restart_and_for_each_hotkey(tmp_path):
    path = tmp_path / "made" / "nonces.sqlite"
    store = SqliteNonceStore(path, clock_ns=lambda: NOW)
    assert store.check_and_store("5Alice", NOW)
    assert store.check_and_store("5Bob", NOW)
    # Not closed: the process was killed.
    again = SqliteNonceStore(path, clock_ns=lambda: NOW)
    assert not again.check_and_store("5Alice", NOW)
    assert not again.check_and_store("5Bob", NOW)
    assert again.check_and_store("5Bob", NOW + 1)


def test_a_nonce_is_kept_while_its_request_is_fresh_and_purged_after(tmp_path):
    now = [NOW]
    store = SqliteNonceStore(tmp_path / "nonces.sqlite", retention=60, clock_ns=lambda: now[0])
    assert store.retention >= MAX_AGE + ALLOWED_SKEW
    for number in range(50):
        assert store.check_and_store("5Alice", NOW + number)
    now[0] += 59 * 10**9
    assert not store.check_and_store("5Alice", NOW)
    now[0] += 2 * 10**9
    assert store.check_and_store("5Alice", now[0])
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT count(*) FROM nonces").fetchone() == (1,)


def test_a_full_store_refuses_and_forgets_nothing(tmp_path):
    now = [NOW]
    store = SqliteNonceStore(tmp_path / "nonces.sqlite", max_nonces=3, clock_ns=lambda: now[0])
    for number in range(3):
        assert store.check_and_store("5Alice", NOW + number)
    now[0] += 2 * 10**9
    with pytest.raises(RequestError) as caught:
        store.check_and_store("5Bob", NOW)
    assert caught.value.http_status == 429
    now[0] += 61 * 10**9
    assert store.check_and_store("5Bob", now[0])


def test_a_clock_that_is_put_back_does_not_end_the_forgetting(tmp_path):
    now = [NOW + 3600 * 10**9]
    store = SqliteNonceStore(tmp_path / "nonces.sqlite", clock_ns=lambda: now[0])
    assert store.check_and_store("5Alice", now[0])
    now[0] = NOW
    for _ in range(3):
        assert store.check_and_store("5Alice", now[0])
        now[0] += 100 * 10**9
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT count(*) FROM nonces WHERE nonce < ?", (now[0],)).fetchone() == (1,)


def test_a_file_that_cannot_be_used_is_a_usage_error_that_names_it(tmp_path):
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    garbage = tmp_path / "garbage.sqlite"
    garbage.write_bytes(b"no database at all" * 100)
    below_a_file = garbage / "nonces.sqlite"
    for path, word in ((newer, "version 99"), (garbage, "not a database"), (below_a_file, "cannot open")):
        with pytest.raises(UsageError, match=word) as caught:
            SqliteNonceStore(path)
        assert str(path) in str(caught.value)
        assert caught.value.remedy


def test_a_store_that_fails_says_so_instead_of_accepting(tmp_path):
    store = SqliteNonceStore(tmp_path / "nonces.sqlite")
    store.close()
    with pytest.raises(StorageError, match=r"nonces\.sqlite"):
        store.check_and_store("5Alice", NOW)
