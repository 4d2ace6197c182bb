#!/usr/bin/env python
"""How fast clients' files go into the subnet and come out again, beside what their coding alone takes.

    python scripts/bench_files.py
    python scripts/bench_files.py --size 100MB --rounds 1 --dir /mnt/disk --json

Starts a devnet, a validator with its gateway, and the miners, all as processes on this machine, and runs the
commands that users run: `tensorage put` and `tensorage get`, timed from the start of the process to its end.
Before each round the coding is measured alone, so that a machine that is slow for a while is slow for both.
The figures are medians over the rounds.

    zfec, aes_gcm            MB of a file per second, one thread, in memory: K of N as in the run, and
                             AES-256-GCM in segments as `coding.stream` has them
    put, get                 MB of the file per second; their ratio to the slower of the two is 0.5 or more
    get_degraded             with M miners killed, drawn by lot; the file's SHA-256 is the same
    storage_overhead         bytes of shards on the miners' disks over N/K of the file, less one; under 0.01
    first_byte_round_trips   time from asking for a file to its first byte, over the median time of a signed
                             ping; under 10
    peak_rss_mb              most memory that a command had resident, in millions of bytes; under 300

Exits with 1 when one of them is missed. Needs disk for about eight times the size, for each round.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from tensorage import seal
from tensorage.allocator.machine import description
from tensorage.chain.network import ChainSettings
from tensorage.chain.wallet import load_hotkey
from tensorage.client.catalog import Catalog
from tensorage.client.coder import Coder
from tensorage.client.download import Download
from tensorage.client.fetching import Fetcher
from tensorage.client.gateway import Access
from tensorage.client.home import Home
from tensorage.client.known import known_file
from tensorage.client.reach import reaching
from tensorage.coding import erasure, layout, stream
from tensorage.config import run
from tensorage.demo.customer import Customer
from tensorage.demo.network import Network, Shape
from tensorage.demo.stage import HOTKEY, NETUID
from tensorage.errors import TensorageError
from tensorage.gateway.accounts import ApiKey, parse_quota
from tensorage.transport.dendrite import Dendrite, Peer

app = typer.Typer(add_completion=False)

_TIMES = 30
_SAMPLE = 64 << 20  # bytes that the coding is measured with
_COLUMNS = 32 << 10  # of each shard at a time: what a processor's cache holds
_FREE_CHUNKS = 8  # of each miner, beside what the files take
#: The miners share a machine here, each with work that takes no time on a real network, where it is done once
#: in many minutes. So that it takes little here either:
QUIET = Shape(block_seconds=2.0, tempo=10, plan_seconds=30.0, round_seconds=60.0)


class GoalMissedError(TensorageError):
    """A figure is not what it should be."""


@dataclass(frozen=True)
class Goal:
    """What a figure should be: at least, or less than."""

    figure: str
    least: float | None = None
    under: float | None = None

    def met(self, value: float) -> bool:
        """Whether it is."""
        return (self.least is None or value >= self.least) and (self.under is None or value < self.under)

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.least is not None else f"< {self.under:g}"


GOALS = {
    goal.figure: goal
    for goal in (
        Goal("put_ratio", least=0.5),
        Goal("get_ratio", least=0.5),
        Goal("degraded_same_bytes", least=1),
        Goal("storage_overhead", under=0.01),
        Goal("first_byte_round_trips", under=10),
        Goal("put_peak_rss_mb", under=300),
        Goal("get_peak_rss_mb", under=300),
    )
}


def rate(size: int, work: Callable[[], object]) -> float:
    """MB (10^6 bytes) a second at which a call does `size` bytes."""
    began = time.perf_counter()
    work()
    return size / (time.perf_counter() - began) / 1e6


def zfec_alone(k: int, n: int) -> float:
    """MB of data a second that become n shards, in one thread."""
    shard = _SAMPLE // k // _COLUMNS * _COLUMNS
    data = [memoryview(os.urandom(shard)) for _ in range(k)]

    def encode() -> None:
        for at in range(0, shard, _COLUMNS):
            erasure.encode([block[at : at + _COLUMNS] for block in data], n)

    return rate(k * shard, encode)


def aes_gcm_alone() -> float:
    """MB of a file a second that are encrypted in segments, in one thread."""
    data = memoryview(os.urandom(_SAMPLE))
    room = bytearray(stream.SEALED_SIZE)
    encryptor = stream.Encryptor(bytes(32))

    def encrypt() -> None:
        for index, at in enumerate(range(0, len(data), stream.SEGMENT_SIZE)):
            encryptor.segment_into(index, data[at : at + stream.SEGMENT_SIZE], False, room)

    return rate(len(data), encrypt)


def disk_alone(directory: Path) -> float:
    """MB a second that are written in files of 4 MiB, each flushed."""
    data = os.urandom(seal.CHUNK_SIZE)
    paths = [directory / f"disk-{number}" for number in range(32)]

    def write() -> None:
        for path in paths:
            with path.open("wb") as file:
                file.write(data)
                os.fsync(file.fileno())

    try:
        return rate(len(paths) * len(data), write)
    finally:
        for path in paths:
            path.unlink()


def make_file(path: Path, size: int) -> str:
    """Write `size` random bytes; their SHA-256."""
    digest = sha256()
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            piece = os.urandom(min(1 << 20, size - start))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def hash_of(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def stored_bytes(network: Network) -> int:
    """Bytes of shards on the disks of all miners."""
    return sum(path.stat().st_size for name in network.miners for path in network.root(name).rglob("*.shard"))


async def round_trip(network: Network, peer: Peer) -> float:
    """Seconds that a signed ping of a miner takes, the median of some on one connection."""
    asker = load_hotkey(network.miners[1], HOTKEY, network.stage.wallets)
    async with Dendrite(asker, allow_private=True) as dendrite:
        times = []
        for _ in range(_TIMES):
            began = time.perf_counter()
            await dendrite.ping(peer)
            times.append(time.perf_counter() - began)
    return median(times)


class Enough(Exception):
    """The first bytes are there."""


async def first_byte(customer: Customer, name: str) -> float:
    """Seconds from asking for a file by its name to its first byte, new connections and all: a median."""
    access = Access(
        customer.gateway,
        ApiKey.parse(customer.api_key),
        ("", "", Path()),
        lambda: ChainSettings("finney", None, NETUID),
        True,
    )
    return median([await _first_byte(access, Home(customer.home).catalog, name) for _ in range(_TIMES)])


async def _first_byte(access: Access, catalog_path: Path, name: str) -> float:
    def arrived(view: memoryview) -> None:
        raise Enough

    began = time.perf_counter()
    with closing(Catalog(catalog_path)) as catalog:
        known = known_file(catalog, name)
        async with reaching(known, access, catalog) as reach:
            with Coder(known.keys.spread, known.manifest.id) as coder:
                fetcher = Fetcher(reach.places, reach.miners, coder, reach.gateway)
                try:
                    await Download(known.manifest, known.keys, fetcher, coder).run(arrived)
                except Enough:
                    return time.perf_counter() - began
                finally:
                    await fetcher.finish()
    raise GoalMissedError(f"{name} has no first byte")


@dataclass(frozen=True)
class Settings:
    """What to measure: bytes of the file, K, M, miners, and rounds to take the median of."""

    size: int
    data_shards: int
    parity_shards: int
    miners: int
    rounds: int

    @property
    def shards(self) -> int:
        """N."""
        return self.data_shards + self.parity_shards

    @property
    def chunks(self) -> int:
        """Of each miner, so that all files of the run find room."""
        stripes = len(layout.stripes(stream.ciphertext_size(self.size), self.data_shards))
        return -(-stripes * self.shards * self.rounds // self.miners) + _FREE_CHUNKS


class Bench:
    """One run.

    Args:
        say: takes lines for whoever waits.
    """

    def __init__(self, settings: Settings, directory: Path, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.directory = directory
        self.say = say
        self.source = directory / "file"
        self.copy = directory / "copy"
        self.rows: list[dict[str, float]] = []

    def run(self) -> dict[str, float]:
        """The figures."""
        settings = self.settings
        figures = {"disk_mb_per_s": disk_alone(self.directory)}
        digest = make_file(self.source, settings.size)
        shape = replace(QUIET, miners=settings.miners, chunks=settings.chunks)
        self.say(f"starting a network of {settings.miners} miners that keep {settings.chunks} chunks each")
        with Network(self.directory / "network", shape) as network:
            network.wait_until_proven(seconds=600)
            network.wait_for_room()
            customer = Customer(network, self.directory / "home")
            for number in range(settings.rounds):
                self.rows.append(self.round(network, customer, f"file-{number}", digest))
                self.say(
                    f"round {number + 1}: " + ", ".join(f"{k} {v:.4g}" for k, v in self.rows[-1].items())
                )
            miner = network.miners[0]
            trip = asyncio.run(round_trip(network, Peer(network.hotkey(miner), network.endpoint(miner))))
            first = asyncio.run(first_byte(customer, "file-0"))
            figures |= {"round_trip_ms": trip * 1e3, "first_byte_ms": first * 1e3}
            figures["first_byte_round_trips"] = first / trip
            figures |= self.degraded(network, customer, digest)
        medians = {name: median(row[name] for row in self.rows) for name in self.rows[0]}
        return medians | figures

    def round(self, network: Network, customer: Customer, name: str, digest: str) -> dict[str, float]:
        """Coding alone, put, get."""
        settings = self.settings
        zfec, aes = zfec_alone(settings.data_shards, settings.shards), aes_gcm_alone()
        before = stored_bytes(network)
        code = (f"--data-shards={settings.data_shards}", f"--parity-shards={settings.parity_shards}")
        put = customer.put(self.source, name, *code)
        put.json()
        stored = stored_bytes(network) - before
        get = customer.get(name, self.copy)
        get.json()
        if hash_of(self.copy) != digest:
            raise GoalMissedError(f"{name} did not come back as it was put")
        self.copy.unlink()
        slower = min(zfec, aes)
        rates = {"put": settings.size / put.seconds / 1e6, "get": settings.size / get.seconds / 1e6}
        return {
            "zfec_mb_per_s": zfec,
            "aes_gcm_mb_per_s": aes,
            "put_mb_per_s": rates["put"],
            "get_mb_per_s": rates["get"],
            "put_ratio": rates["put"] / slower,
            "get_ratio": rates["get"] / slower,
            "storage_overhead": stored * settings.data_shards / settings.shards / settings.size - 1,
            "put_peak_rss_mb": put.peak_bytes / 1e6,
            "get_peak_rss_mb": get.peak_bytes / 1e6,
        }

    def degraded(self, network: Network, customer: Customer, digest: str) -> dict[str, float]:
        """Get the first file with M miners killed."""
        gone = random.SystemRandom().sample(network.miners, self.settings.parity_shards)
        for name in gone:
            network.kill(name)
        self.say(f"killed {', '.join(gone)}")
        got = customer.get("file-0", self.copy)
        got.json()
        same = hash_of(self.copy) == digest
        rate = self.settings.size / got.seconds / 1e6
        return {"get_degraded_mb_per_s": rate, "degraded_same_bytes": float(same)}


@app.command()
def bench(
    size: Annotated[str, typer.Option(help="Of the file: 1GB, 100MB.")] = "1GB",
    miners: Annotated[int, typer.Option(min=2, help="Miners, each a process.")] = 12,
    data_shards: Annotated[int, typer.Option(min=1, help="K, the shards that suffice.")] = 4,
    parity_shards: Annotated[int, typer.Option(min=1, help="M, the shards that may be lost.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to take the median of.")] = 3,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Directory on the disk to use.", show_default="temporary")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure putting and getting files on this machine.

    Example: python scripts/bench_files.py --size 100MB --rounds 1 --dir /mnt/disk
    """
    settings = Settings(parse_quota(size), data_shards, parity_shards, miners, rounds)
    with tempfile.TemporaryDirectory(dir=directory, prefix="bench-files-") as place:
        figures = Bench(settings, Path(place), lambda line: typer.echo(line, err=True)).run()
    missed = [goal for name, goal in GOALS.items() if not goal.met(figures[name])]
    figures = {name: round(value, 4) for name, value in figures.items()}
    if as_json:
        about = {"machine": description(), "size": settings.size, "code": [data_shards, settings.shards]}
        typer.echo(json.dumps({**about, **figures, "missed": [goal.figure for goal in missed]}))
    else:
        here = description()
        typer.echo(
            f"{here['name']}: {here['processor']}, {here['threads']} processor threads, "
            f"{here['memory_gb']:.0f} GB of memory"
        )
        typer.echo(f"{settings.size / 1e6:g} MB, {data_shards} of {settings.shards}, {miners} miners")
        for name, value in figures.items():
            goal = GOALS.get(name)
            typer.echo(f"{name:26} {value:10.3f}" + (f"   {goal}" if goal else ""))
    if missed:
        raise GoalMissedError("missed: " + ", ".join(f"{goal.figure} {goal}" for goal in missed))


if __name__ == "__main__":
    sys.exit(run(app, program="bench_files.py"))
