"""`tensorage devnet` as operators run it: its own process, killed, stopped, doubled and misused."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from tensorage.chain.devnet.producer import is_producing
from tensorage.chain.devnet.state import View
from tensorage.chain.devnet.store import Store

DEVNET = [sys.executable, "-m", "tensorage", "devnet"]


def run(*arguments, **options):
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [*DEVNET, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        **options,
    )


@contextlib.contextmanager
def up(path, *arguments):
    """A devnet's producer, killed at the end if it is still there."""
    process = subprocess.Popen([*DEVNET, "up", "--quiet", "--path", str(path), *map(str, arguments)])
    try:
        wait_for(lambda: path.exists() and process.poll() is None and head(path) >= 1)
        yield process
    finally:
        process.kill()
        process.wait()


def head(path):
    try:
        store = Store(path)
    except Exception:
        return -1  # it is just being made
    try:
        return store.head()
    finally:
        store.close()


def wait_for(holds, seconds=30):
    for _ in range(seconds * 50):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to be in time")


def check_chain(path):
    """Every block follows the one before, and what the state says of the head is the head's."""
    store = Store(path)
    blocks = [store.block(number) for number in range(store.head() + 1)]
    for parent, child in pairwise(blocks):
        assert child.parent == parent.hash
        assert child.time_ms > parent.time_ms
    assert View(store, store.head())["LastEpochBlock", 1] <= store.head()
    store.close()
    return blocks


def test_a_producer_that_is_killed_leaves_a_whole_chain_that_goes_on(tmp_path):
    path = tmp_path / "devnet.sqlite"
    known = []
    for life in range(3):
        with up(path, "--block-time", 0.02, *(["--tempo", 30_000] if not known else [])) as process:
            before = head(path)
            wait_for(lambda before=before: head(path) > before + 3)
            time.sleep(random.Random(life).random() / 5)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        assert not is_producing(path)
        blocks = check_chain(path)
        assert blocks[: len(known)] == known
        known = blocks


def test_a_second_producer_on_a_file_is_refused_and_the_first_leaves_at_once_when_asked(tmp_path):
    path = tmp_path / "devnet.sqlite"
    with up(path, "--block-time", 30) as process:
        second = run("up", "--path", path)
        assert second.returncode == 2
        assert second.stderr.splitlines()[-1].startswith(f"error: another process makes blocks for {path}.")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(25) == 0
        assert time.monotonic() - started < 20  # and not when the next block is due
    check_chain(path)


def test_a_wallet_is_made_funded_registered_and_staked_by_three_commands(tmp_path):
    path, wallets = tmp_path / "devnet.sqlite", tmp_path / "wallets"
    keys = ["--path", path, "--wallet.name", "miner", "--wallet.hotkey", "hot", "--wallet.path", wallets]
    with up(path, "--block-time", 0.1, "--netuid", 7, "--tempo", 5000):
        missing = run("register", *keys)
        assert missing.returncode == 2
        assert "Pass --create-wallet, or run `btcli wallet create -w miner -H hot" in missing.stderr
        assert missing.stderr.count("\n") == 1
        made = run("register", *keys, "--create-wallet", "--json")
        assert made.returncode == 0, made.stderr
        record = json.loads(made.stdout)
        assert (record["netuid"], record["uid"]) == (7, 1)
        assert "mnemonic" not in (made.stdout + made.stderr).lower()
        again = run("register", *keys)
        assert again.returncode == 0
        assert "is uid 1 on subnet 7" in again.stdout
        staked = run("stake", 250, *keys)
        assert staked.returncode == 0, staked.stderr
        shown = json.loads(run("status", "--path", path, "--json").stdout)
        assert (shown["netuid"], shown["producing"]) == (7, True)
        assert shown["neurons"][1]["hotkey"] == record["hotkey"]
        assert shown["neurons"][1]["stake"] >= 250
        table = run("status", "--path", path)
        assert table.returncode == 0
        assert record["hotkey"] in table.stdout
    assert run("status", "--path", path, "--netuid", 9).returncode == 2
    stopped = run("stake", 1, *keys)
    assert stopped.returncode == 1
    assert stopped.stderr.startswith("error: nobody makes blocks for the devnet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--block-time", "0"], "block_time must be between"),
        (["--tempo", "0"], "tempo must be between"),
        (["--netuid", "70000"], "netuid must be between"),
        (["--path", "postgres:///x"], "is no devnet endpoint"),
        (["--path", "/proc/none/devnet.sqlite"], "cannot make a devnet at"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    where = [] if "--path" in arguments else ["--path", tmp_path / "devnet.sqlite"]
    result = run("up", *where, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "devnet.sqlite").exists()


def test_a_creation_that_was_cut_short_is_done_again_and_a_strangers_file_is_left_alone(tmp_path):
    path, other = tmp_path / "devnet.sqlite", tmp_path / "other.sqlite"
    Store(path, create=True).close()  # the tables, and no genesis
    with up(path, "--block-time", 0.05, "--tempo", 5000):
        pass
    assert len(check_chain(path)) > 1
    with contextlib.closing(sqlite3.connect(other)) as stranger:
        stranger.execute("CREATE TABLE mine (x)")
    before = other.read_bytes()
    refused = run("up", "--path", other)
    assert refused.returncode == 2
    assert "holds no devnet" in refused.stderr
    assert other.read_bytes() == before


def test_what_was_fixed_at_genesis_cannot_be_given_again(tmp_path):
    path = tmp_path / "devnet.sqlite"
    with up(path, "--block-time", 0.05, "--tempo", 5000):
        pass
    late = run("up", "--path", path, "--tempo", 9)
    assert late.returncode == 2
    assert "--tempo comes too late" in late.stderr
    for beside in tmp_path.iterdir():  # the journal would repair it
        beside.unlink()
    path.write_bytes(b"something else that is not a database at all" * 100)
    damaged = run("up", "--path", path)
    assert damaged.returncode in (1, 2)
    assert damaged.stderr.startswith("error: ")
    assert damaged.stderr.count("\n") == 1
