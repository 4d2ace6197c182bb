"""What is shown of work, and how many workers there are."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from tensorage.allocator.machine import PROCESS_SIZE, available_memory, worker_count
from tensorage.allocator.progress import Display
from tensorage.allocator.sealing import Job, Progress
from tensorage.errors import UsageError
from tensorage.seal import DEV, MAIN

SIZE = DEV.size


def report(worker: int, index: int, done: int) -> Progress:
    return Progress(worker, Job(index, Path("x"), seal=True), done)


def shown(reports: list[Progress], *, terminal: bool, seconds: float) -> str:
    """What a display shows of reports that come `seconds` apart."""
    out = io.StringIO()
    times = iter(range(10_000))
    console = Console(file=out, force_terminal=terminal, width=140, color_system=None)
    display = Display("sealing", 4, SIZE, console, clock=lambda: next(times) * seconds)
    with display:
        for each in reports:
            display.observe(each)
    return out.getvalue()


def test_without_a_terminal_there_is_a_line_now_and_then_and_one_at_the_end():
    reports = [report(0, 0, SIZE // 2), report(1, 1, SIZE), report(0, 0, SIZE), report(1, 2, SIZE)]
    assert len(shown(reports, terminal=False, seconds=0.01).splitlines()) == 1
    lines = shown(reports, terminal=False, seconds=20).splitlines()
    assert len(lines) > 2
    assert re.fullmatch(r"sealing: 3 of 4 sectors, 12 of 16 MiB, \d+ MB/s, \d+ s left", lines[-1])


def test_a_terminal_has_a_bar_for_all_and_one_for_each_worker():
    reports = [report(0, 7, SIZE // 4), report(1, 8, SIZE // 2), report(0, 7, SIZE), report(0, 9, SIZE // 4)]
    text = shown(reports, terminal=True, seconds=1)
    last = text[text.rindex("sealing") :]
    assert "7.0/16.0 MiB" in last
    assert "worker 1: sector 9" in last and "worker 2: sector 8" in last


def test_what_a_dead_worker_had_done_is_not_counted_twice():
    reports = [report(0, 0, SIZE // 2), report(1, 0, SIZE // 4), report(1, 0, SIZE)]
    assert "1 of 4 sectors, 4 of 16 MiB" in shown(reports, terminal=False, seconds=0.01)


def test_a_sector_that_is_reported_as_done_twice_counts_once():
    reports = [report(0, 0, SIZE), report(0, 0, SIZE), report(0, 0, SIZE // 2)]
    assert "1 of 4 sectors, 4 of 16 MiB" in shown(reports, terminal=False, seconds=0.01)


@pytest.mark.parametrize(
    ("jobs", "most", "memory", "workers"),
    [
        (100, 8, None, 8),
        (3, 8, None, 3),
        (100, 8, 100 << 30, 8),
        (100, 8, 6 << 30, 4),  # 0.8 x 6 GiB hold four workers of 1.15 GiB
        (100, 8, 3 << 29, 1),
    ],
)
def test_workers_are_no_more_than_jobs_threads_and_memory_allow(jobs, most, memory, workers):
    assert worker_count(MAIN, jobs, most=most, memory=memory) == workers


def test_memory_for_no_worker_is_said_with_the_figures():
    with pytest.raises(
        UsageError, match=r"1024 MiB of memory are available, sealing one sector takes 14\d\d"
    ):
        worker_count(MAIN, 1, most=1, memory=1 << 30)


def test_this_machine_has_memory():
    memory = available_memory()
    assert memory is None or memory > PROCESS_SIZE
