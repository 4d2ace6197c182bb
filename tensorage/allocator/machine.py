"""What this machine can give to sealing: processor threads and memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..seal import Profile

MEMORY_SHARE = 0.8
PROCESS_SIZE = 150 << 20  # of a worker besides its sector

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def cpu_threads() -> int:
    """Processor threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def description() -> dict[str, Any]:
    """What a figure was measured on: name, processor, threads, and memory in billions of bytes."""
    model = platform.processor() or platform.machine()
    if _CPUINFO.exists():
        named = [line for line in _CPUINFO.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"name": platform.node(), "processor": model, "threads": cpu_threads(), "memory_gb": memory / 1e9}


def available_memory() -> int | None:
    """Bytes that processes may still take, within the limit of a container; None where nobody says."""
    known = []
    if _MEMINFO.exists():
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            known.append(int(fields["MemAvailable"].split()[0]) * 1024)
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        known.append(max(int(most) - int(used.read_text()), 0))
    return min(known) if known else None


def worker_count(profile: Profile, jobs: int, *, most: int | None = None, memory: int | None = None) -> int:
    """How many workers to start: no more than jobs, processor threads (or `most`), or fit in memory.

    Args:
        most: what the operator asks for; the processor threads by default.
        memory: bytes available, None when unknown.

    Raises:
        UsageError: not one fits in memory.
    """
    count = max(min(most or cpu_threads(), jobs), 1)
    if memory is None:
        return count
    fits = int(memory * MEMORY_SHARE) // (profile.size + PROCESS_SIZE)
    if fits < 1:
        needed = (profile.size + PROCESS_SIZE) / MEMORY_SHARE / 2**20
        raise UsageError(
            f"{memory / 2**20:.0f} MiB of memory are available, sealing one sector takes {needed:.0f}",
            remedy="Close other programs or add memory",
        )
    return min(count, fits)
