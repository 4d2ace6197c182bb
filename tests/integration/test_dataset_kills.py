"""Owners' commands as real processes: killed at any instant, and two at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dataset_owner import (
    ALICE,
    bundle,
    check_whole,
    key_file,
    leftovers,
    open_store,
    record,
    start_dataset,
)

CHILD = Path(__file__).with_name("dataset_child.py")
MILLISECONDS = [0, 3, 7, 12, 18, 25, 33, 42, 55, 70, 90, 120]


def kill_after(milliseconds, home, *bundles):
    """Have a process record versions for so long, and kill it."""
    command = [sys.executable, str(CHILD), str(home), (b"\1" * 32).hex(), *map(str, bundles)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ})
    try:
        assert child.stdout.readline() == b"ready\n"
        child.stdin.write(b"go\n")
        child.stdin.flush()
        time.sleep(milliseconds / 1000)
    finally:
        child.kill()
        assert child.wait(30) == -signal.SIGKILL
        child.stdin.close()
        child.stdout.close()


def test_a_command_that_is_killed_at_any_instant_leaves_a_store_that_goes_on(tmp_path):
    home = tmp_path / "home"
    bundles = [bundle(tmp_path / "one", os.urandom(3_000_000)), bundle(tmp_path / "two", b"2\n")]
    signed = {}
    for milliseconds in MILLISECONDS:
        kill_after(milliseconds, home, *bundles)
        with open_store(home) as store:
            store.create("chats", ALICE.owner)
            check_whole(store)
            for entry in (line.entry for line in store.log("chats").entries):
                assert signed.setdefault(entry.seq, entry.hash) == entry.hash
            if begun := store.unfinished("chats"):
                signed[begun.seq] = begun.hash
    with open_store(home) as store:
        store.finish("chats", ALICE)
        before = check_whole(store)
        assert record(store, bundles[0]).entry.seq == before + 1
        assert check_whole(store) == before + 1
        for entry in (line.entry for line in store.log("chats").entries):
            assert signed.get(entry.seq, entry.hash) == entry.hash
    assert leftovers(home) == []
    assert before > 1


def test_versions_at_once_come_one_after_the_other(tmp_path):
    home = tmp_path / "home"
    with open_store(home) as store:
        record(store, bundle(tmp_path / "first"))
    key = key_file(tmp_path / "key")
    running = [
        start_dataset(
            "version",
            "chats",
            "--bundle",
            bundle(tmp_path / name, os.urandom(5_000_000)),
            "--key",
            key,
            home=home,
        )
        for name in ("one", "two", "three")
    ]
    outcomes = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outcomes
    assert sorted(out.split()[3] for out, _ in outcomes) == ["2", "3", "4"]
    with open_store(home) as store:
        assert check_whole(store) == 4
        assert len({line.entry.file_hash for line in store.log("chats").entries}) == 4
        assert store.head("chats").head.seq == 4
