"""The main job: the real demo, with all its processes, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TENSORAGE = [sys.executable, "-m", "tensorage"]
DEMO = [*TENSORAGE, "devnet", "demo"]


def play(*flags: str, within: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *flags], capture_output=True, text=True, timeout=within, check=False)


def processes_under(directory: Path) -> list[str]:
    """Command lines of live processes that name the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(directory) in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


def test_honest_miners_are_paid_by_the_byte_and_cheats_nothing(tmp_path):
    directory = tmp_path / "demo"
    done = play("--json", "--directory", str(directory), within=240)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["verdict"] == {"ok": True, "reason": ""}
    rows = {row["name"]: row for row in table["neurons"]}
    smallest = rows["miner-1"]["emission"]
    for name, share in (("miner-1", 1), ("miner-2", 2), ("miner-4", 4)):
        assert rows[name]["emission"] == pytest.approx(share * smallest, rel=0.15)
        assert rows[name]["verdicts"]["passed"] > 0
        assert rows[name]["verdicts"]["wrong"] == 0
        assert 0 < rows[name]["proven_bytes"] <= rows[name]["committed_bytes"]
    for name, reason in (("overwritten", "is not the one committed to"), ("zeros", "not the sealed ones")):
        assert rows[name]["emission"] == 0
        assert len(rows[name]["validators"]) == 2
        for validator in rows[name]["validators"].values():
            assert validator["weight"] == 0
            assert reason in validator["reason"]
    assert Path(table["paths"]["logs"], "validator-1.log").is_file()
    for ledger in table["paths"]["receipts"]:
        receipts = subprocess.run(
            [*TENSORAGE, "receipts", "export", ledger], capture_output=True, timeout=60, check=True
        )
        subprocess.run([*TENSORAGE, "receipts", "verify", "-"], input=receipts.stdout, timeout=60, check=True)
    assert len(list(directory.glob("data/*/sn1-*/validator.sqlite"))) == 2
    assert len(list(directory.glob("data/*/sn1-*/miner.sqlite"))) == 5
    assert processes_under(directory) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path, how):
    directory = tmp_path / "demo"
    with subprocess.Popen(
        [*DEMO, "--directory", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        deadline = time.monotonic() + 60
        while len(processes_under(directory)) < 5 and time.monotonic() < deadline:
            time.sleep(0.1)
        demo.send_signal(how)
        _, said = demo.communicate(timeout=20)
    assert demo.returncode == 130, said
    assert "Traceback" not in said
    assert processes_under(directory) == []


def test_a_demo_that_runs_out_of_time_says_why_in_one_line(tmp_path):
    directory = tmp_path / "demo"
    done = play("--seconds", "15", "--directory", str(directory), within=60)
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert processes_under(directory) == []


def test_a_directory_in_use_is_refused(tmp_path):
    (tmp_path / "something").write_text("here")
    done = play("--directory", str(tmp_path), within=60)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
