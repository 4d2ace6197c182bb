#!/usr/bin/env python
"""How fast this machine seals, and what the pipeline around the fill costs.

    python scripts/bench_seal.py --dir /mnt/disk --rounds 5
    python scripts/bench_seal.py --json

Each round runs, one after the other: argon2-cffi's C code with the parameters of the seal, the fill alone,
one worker process, and two. So a machine that is slow for a while is slow for all of them. The figures are
medians over the rounds. A worker's time is that of its second sector, from the row of the first to the row
of the second, when its kernel is compiled and its memory is mapped.

    ratio_to_argon2_c             time of the C code over time of the fill; 1.5 or more with wide vectors
    pipeline_ratio                time of the fill alone over that of fill, trees, write, fsync and row; 0.85
    mb_per_s_one_worker           sealed and on disk, millions of bytes a second
    mb_per_s_two_workers          the same for two; 1.8 times as much, where there are two cores
    peak_rss_sectors_per_worker   most memory that a worker had resident, in sectors; at most 1.15

Needs argon2-cffi, and three sectors of memory and four of disk.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from argon2.low_level import Type, hash_secret_raw

from tensorage import seal
from tensorage.allocator.layout import Identity
from tensorage.allocator.machine import cpu_threads
from tensorage.allocator.plan import Headroom, Target
from tensorage.allocator.sealing import Control, Progress
from tensorage.allocator.upkeep import DataDirectory
from tensorage.allocator.worker import NICE
from tensorage.config import run

app = typer.Typer(add_completion=False)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def time_argon2(profile: seal.Profile) -> float:
    """Seconds that argon2-cffi takes for one sector's matrix."""
    return seconds(
        lambda: hash_secret_raw(
            bytes(32),
            seal.SALT,
            time_cost=seal.PASSES,
            memory_cost=profile.size // 1024,
            parallelism=1,
            hash_len=32,
            type=Type.D,
        )
    )


def time_fill(profile: seal.Profile) -> float:
    """Seconds that the fill of one sector takes, in memory that is mapped already."""
    sealer = seal.Sealer(profile)
    next(sealer.steps(bytes(32)))
    return seconds(lambda: sealer.seal(bytes(32)))


def peak_of_children() -> int:
    """The most bytes that a child process has had resident (Linux; 0 elsewhere).

    Not getrusage: it counts what this process had when it started the child.
    """
    peak = 0
    for thread in Path("/proc/self/task").glob("*/children"):
        for pid in thread.read_text().split():
            status = Path(f"/proc/{pid}/status").read_text()
            if "VmHWM:" in status:
                peak = max(peak, int(status.split("VmHWM:")[1].split()[0]) * 1024)
    return peak


def time_workers(profile: seal.Profile, directory: Path, workers: int) -> tuple[float, int]:
    """`workers` at once: seconds a sector takes in the second sector of each, and their peak memory."""
    ends: list[float] = []
    peak = 0

    def observe(progress: Progress) -> None:
        nonlocal peak
        if progress.done == profile.size:
            ends.append(time.perf_counter())
        peak = max(peak, peak_of_children())

    with tempfile.TemporaryDirectory(dir=directory, prefix="bench-seal-") as root:
        identity = Identity(bytes(32), 7, bytes(32), profile.number)
        with DataDirectory([Path(root)], identity) as data, data.filling():
            data.apply(data.plan(Target(size=2 * workers * profile.size), Headroom(size=0)))
            data.fill(workers, Control(), observe)
    if len(ends) != 2 * workers:
        raise RuntimeError(f"{len(ends)} sectors were sealed, not {2 * workers}")
    return sum(ends[workers:]) / workers - sum(ends[:workers]) / workers, peak


def measure(profile: seal.Profile, directory: Path, rounds: int) -> dict[str, float]:
    """The figures."""
    os.nice(NICE)  # as the workers are
    time_fill(seal.DEV)  # compile
    runs: dict[str, list[float]] = {"argon2": [], "fill": [], "one": [], "two": []}
    peak = 0
    for _ in range(rounds):
        runs["argon2"].append(time_argon2(profile))
        runs["fill"].append(time_fill(profile))
        for workers, name in ((1, "one"), (2, "two")):
            taken, memory = time_workers(profile, directory, workers)
            runs[name].append(taken)
            peak = max(peak, memory)
    argon2, fill, one, two = (median(runs[name]) for name in ("argon2", "fill", "one", "two"))
    return {
        "ratio_to_argon2_c": argon2 / fill,
        "pipeline_ratio": fill / one,
        "mb_per_s_one_worker": profile.size / one / 1e6,
        "mb_per_s_two_workers": 2 * profile.size / two / 1e6,
        "peak_rss_sectors_per_worker": peak / profile.size,
        "seconds_argon2_c": argon2,
        "seconds_fill": fill,
        "seconds_one_worker": one,
        "seconds_two_workers": two,
    }


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to take the median of.")] = 3,
    profile: Annotated[int, typer.Option(min=0, max=1, help="Size of sectors.")] = 1,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Directory on the disk to use.", show_default="temporary")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure sealing on this machine.

    Example: python scripts/bench_seal.py --rounds 5 --dir /mnt/disk
    """
    figures = measure(seal.profile(profile), directory or Path(tempfile.gettempdir()), rounds)
    figures = {name: round(value, 4) for name, value in figures.items()}
    if as_json:
        typer.echo(json.dumps(figures))
        return
    typer.echo(f"{platform.node()}: {platform.machine()}, {cpu_threads()} processor threads")
    for name, value in figures.items():
        typer.echo(f"{name:28} {value:10.3f}")


if __name__ == "__main__":
    sys.exit(run(app, program="bench_seal.py"))
