"""No process of the demo outlives it, whatever the process does with its signals."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tensorage.demo.processes import ProcessEndedError, Processes

STUBBORN_FAMILY = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = os.fork()
if worker:
    print(worker, flush=True)
time.sleep(60)
"""


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_ignores_sigterm_and_its_worker_are_killed(tmp_path):
    with Processes(tmp_path) as processes:
        child = processes.start("stubborn", ["-c", STUBBORN_FAMILY])
        wait_for(lambda: child.log.read_text().strip().isdigit())
        worker = int(child.log.read_text())
        assert lives(worker)
        processes.stop(seconds=0.5)
    wait_for(lambda: not lives(worker))
    assert child.process.returncode == -signal.SIGKILL


def test_processes_end_with_an_error_of_the_demo(tmp_path):
    with pytest.raises(RuntimeError), Processes(tmp_path) as processes:
        child = processes.start("sleeper", ["-c", "import time; time.sleep(60)"])
        raise RuntimeError
    assert child.process.returncode is not None


def test_a_process_that_fails_is_named_with_its_last_line(tmp_path):
    with Processes(tmp_path) as processes:
        child = processes.start("faulty", ["-c", "print('going'); raise SystemExit('no disk')"])
        child.process.wait(10)
        with pytest.raises(ProcessEndedError, match="faulty ended with exit code 1: no disk") as caught:
            processes.check()
    assert str(child.log) in caught.value.remedy
