#!/usr/bin/env python
"""How fast datasets are recorded, served, fetched and verified, beside the tools that do part of it.

    python scripts/bench_dataset.py
    python scripts/bench_dataset.py --size 100MB --record-size 500MB --rounds 1 --dir /mnt/disk --json

Runs what users run: `dataset from`, `publish`, `buy` and `verify` as processes, timed from the start of the
process to its end; and, for the two servers, the downloader of `buy` in this process, with every hash that it
checks. What is compared is measured in turn, so that a machine that is slow for a while is slow for both. The
figures are medians over the rounds.

    download, nginx     MB of a file per second that one client fetches and verifies, from `publish` and
                        from nginx; their ratio is 0.6 or more. Without nginx it is left out, and said.
    refetched_chunks    after kill -9 in the middle of `buy`: chunks that were on the disk and came again; at
                        most 1
    verify_seconds      a log of 10,000 versions signed by an sr25519 key, whole command; at most 3
    record, sha256sum   MB a second that `from` and `sha256sum` get through; their ratio is 0.7 or more

Exits with 1 when one of them is missed. Needs disk for about three times the sizes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from tensorage import merkle
from tensorage.allocator.machine import description
from tensorage.chain.wallet import Hotkey
from tensorage.config import run
from tensorage.dataset import wire
from tensorage.dataset.buyer.api import Seller
from tensorage.dataset.buyer.download import Download
from tensorage.dataset.buyer.part import Part
from tensorage.dataset.buyer.sources import HttpSource
from tensorage.dataset.buyer.target import Goal, part_path
from tensorage.dataset.buyer.urls import parse, place
from tensorage.dataset.chunks import CHUNK_SIZE, chunk_count, chunk_span, hash_stream, split_leaves
from tensorage.dataset.entry import Entry, Signed
from tensorage.dataset.files import Disk
from tensorage.dataset.identity import HotkeySigner
from tensorage.dataset.log import Log
from tensorage.encoding import ZERO_HASH
from tensorage.errors import TensorageError, UsageError
from tensorage.gateway.accounts import parse_quota

app = typer.Typer(add_completion=False)

ID = "bench"
VERSIONS = 10_000
_DATASET = (sys.executable, "-m", "tensorage", "dataset")
_KILLED_AT = 0.4  # of the file
_NGINX = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{}}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


class GoalMissedError(TensorageError):
    """A figure is not what it should be."""


#: Figure -> (at least, at most); None where there is no such bound.
GOALS: dict[str, tuple[float | None, float | None]] = {
    "download_ratio": (0.6, None),
    "refetched_chunks": (None, 1),
    "verify_seconds": (None, 3),
    "record_ratio": (0.7, None),
}


def met(name: str, value: float) -> bool:
    """Whether a figure is what it should be."""
    least, most = GOALS[name]
    return (least is None or value >= least) and (most is None or value <= most)


def goal_of(name: str) -> str:
    """The goal as people read it."""
    least, most = GOALS.get(name, (None, None))
    return f">= {least:g}" if least is not None else f"<= {most:g}" if most is not None else ""


@dataclass(frozen=True)
class Settings:
    """Bytes to download and to record, and rounds to take the median of."""

    size: int
    record_size: int
    rounds: int


def make_bundle(directory: Path, size: int) -> Path:
    """A bundle with one artifact of random bytes."""
    directory.mkdir()
    with (directory / "sft.jsonl").open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))
    (directory / "manifest.json").write_text(json.dumps({"files": ["sft.jsonl"]}))
    return directory


def sum_up(path: Path) -> None:
    """Run `sha256sum`."""
    subprocess.run(["sha256sum", path], check=True, stdout=subprocess.DEVNULL)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Bench:
    """One run.

    Args:
        say: takes lines for whoever waits.
    """

    def __init__(self, settings: Settings, directory: Path, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.directory = directory
        self.say = say
        self.environment = os.environ | {
            "TENSORAGE_DATASET_HOME": str(directory / "home"),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }

    def run(self) -> dict[str, float]:
        """The figures."""
        figures = self.verifying() | self.recording()
        bundle = make_bundle(self.directory / "bundle", self.settings.size)
        self.dataset("from", str(bundle), "--name", ID, "--signer", "secp256k1")
        token = self.dataset("members", ID, "--add", "bench")["token"]
        with self.publishing() as url:
            figures |= self.resuming(url, token)
            figures |= self.downloading(url, token, bundle)
        return figures

    def dataset(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        done = subprocess.run(
            [*_DATASET, *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise GoalMissedError(
                f"dataset {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}"
            )
        return json.loads(done.stdout)

    def verifying(self) -> dict[str, float]:
        """A long log, verified."""
        signer = HotkeySigner(Hotkey.from_uri("//Alice"))
        entries: list[Signed] = []
        for seq in range(1, VERSIONS + 1):
            prev = entries[-1].entry.hash if entries else ZERO_HASH
            some = sha256(b"%d" % seq).digest()
            entry = Entry(ID, signer.owner, seq, prev, some, some, seq, some, 1_760_000_000 + seq)
            entries.append(Signed(entry, signer.sign(entry.hash)))
        log = self.directory / "log.json"
        log.write_text(json.dumps(wire.log_json(Log(ID, tuple(entries), ()), None)))
        command = ("verify", str(log), "--owner", signer.owner)
        taken = [seconds(lambda: self.dataset(*command)) for _ in range(max(3, self.settings.rounds))]
        self.say(f"verified {VERSIONS} versions")
        return {"verify_seconds": median(taken)}

    def recording(self) -> dict[str, float]:
        """`from`, beside `sha256sum`."""
        size, rates = self.settings.record_size, []
        bundle = make_bundle(self.directory / "large", size)
        for number in range(self.settings.rounds):
            home = self.directory / f"home-{number}"
            command = ("from", str(bundle), "--name", ID, "--signer", "secp256k1", "--home", str(home))
            summed = seconds(partial(sum_up, bundle / "sft.jsonl"))
            recorded = seconds(partial(self.dataset, *command))
            shutil.rmtree(home)
            rates.append((size / recorded / 1e6, size / summed / 1e6))
            self.say(f"recorded at {rates[-1][0]:.0f} MB/s, sha256sum {rates[-1][1]:.0f} MB/s")
        shutil.rmtree(bundle)
        return {
            "record_mb_per_s": median(rate for rate, _ in rates),
            "sha256sum_mb_per_s": median(rate for _, rate in rates),
            "record_ratio": median(record / summed for record, summed in rates),
        }

    @contextlib.contextmanager
    def publishing(self) -> Iterator[str]:
        """`publish` as a process; its address."""
        command = [*_DATASET, "publish", ID, "--no-tunnel", "--signer", "secp256k1", "--json"]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise GoalMissedError("dataset publish does not serve")
            yield str(json.loads(line)["local_addr"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    def resuming(self, url: str, token: str) -> dict[str, float]:
        """`buy`, killed in the middle, and again."""
        out = self.directory / "bought.jsonl"
        buyer = self.environment | {
            "TENSORAGE_DATASET_HOME": str(self.directory / "buyer"),
            "TENSORAGE_DATASET_TOKEN": token,
        }
        command = [*_DATASET, "buy", f"{url}/dataset/{ID}", "--out", str(out), "--json"]
        process = subprocess.Popen(command, env=buyer, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        part = part_path(out)
        while process.poll() is None and not is_written(part, int(_KILLED_AT * self.settings.size)):
            time.sleep(0.002)
        process.kill()
        process.wait()
        if out.exists():
            raise GoalMissedError("the download was over before it could be killed; take a larger --size")
        leaves = asyncio.run(chunk_list(url, token, self.settings.size))
        there = sum(
            merkle.leaf_hash(chunk) == leaf for chunk, leaf in zip(chunks(part), leaves, strict=False)
        )
        done = subprocess.run(command, env=buyer, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GoalMissedError(f"buy does not go on: {done.stderr.strip()}")
        fetched = sum(source["chunks"] for source in json.loads(done.stdout)["sources"])
        self.say(f"killed with {there} of {len(leaves)} chunks on the disk, fetched {fetched} more")
        out.unlink()
        return {"refetched_chunks": float(fetched - (len(leaves) - there))}

    def downloading(self, url: str, token: str, bundle: Path) -> dict[str, float]:
        """The same file from both servers to the same client."""
        leaves = asyncio.run(chunk_list(url, token, self.settings.size))
        with (bundle / "sft.jsonl").open("rb") as file:
            digest = hash_stream(file.read).sha256
        ours = HttpSource(parse(f"{url}/dataset/{ID}/download"), token, query="version=1")
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if nginx is None:
            self.say(
                "nginx is not installed, so the server is compared with nothing: apt-get install nginx-light"
            )
            rates = [self.fetch(ours, leaves, digest) for _ in range(self.settings.rounds)]
            return {"download_mb_per_s": median(rates)}
        pairs = []
        with nginx_serving(nginx, bundle, self.directory) as address:
            theirs = HttpSource(parse(f"{address}/sft.jsonl"))
            self.fetch(theirs, leaves, digest)  # both files are in the page cache then, or neither
            self.fetch(ours, leaves, digest)
            for _ in range(self.settings.rounds):
                pairs.append((self.fetch(ours, leaves, digest), self.fetch(theirs, leaves, digest)))
                self.say(f"downloaded at {pairs[-1][0]:.0f} MB/s, from nginx at {pairs[-1][1]:.0f} MB/s")
        return {
            "download_mb_per_s": median(mine for mine, _ in pairs),
            "nginx_mb_per_s": median(other for _, other in pairs),
            "download_ratio": median(mine / other for mine, other in pairs),
        }

    def fetch(self, source: HttpSource, leaves: list[bytes], digest: bytes) -> float:
        """MB a second, of a download that is verified and on the disk at its end."""
        size, out = self.settings.size, self.directory / "fetched"
        goal = Goal("bench", ID, 1, digest, size, merkle.root(leaves))

        def work() -> None:
            with Part(out, goal, Disk()) as part:
                Download(part, leaves, [source]).run()
                part.finish(force=True)

        taken = seconds(work)
        out.unlink()
        return size / taken / 1e6


def is_written(part: Path, at: int) -> bool:
    """Whether a file, which is allocated whole before, has anything but zeros at a place."""
    with contextlib.suppress(FileNotFoundError), part.open("rb") as file:
        file.seek(at)
        return any(file.read(64))
    return False


def chunks(path: Path) -> Iterator[bytes]:
    """The chunks of a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_SIZE):
            yield chunk


async def chunk_list(url: str, token: str, size: int) -> list[bytes]:
    """The leaves of version 1, as the server gives them to a member."""
    async with Seller(place(url, ID), token) as seller:
        leaves = list(split_leaves(await seller.chunks(1, size)))
    if len(leaves) != chunk_count(size) or chunk_span(len(leaves) - 1, size)[1] != size:
        raise GoalMissedError(f"{len(leaves)} leaves of {size} bytes")
    return leaves


@contextlib.contextmanager
def nginx_serving(nginx: str, root: Path, directory: Path) -> Iterator[str]:
    """nginx as a process of its own, with `root` served on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = directory / "nginx"
    own.mkdir()
    config = own / "nginx.conf"
    config.write_text(_NGINX.format(dir=own, port=port, root=root))
    process = subprocess.Popen([nginx, "-p", own, "-c", config], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > until or process.poll() is not None:
                raise UsageError("nginx does not start", remedy=f"Try it: {nginx} -p {own} -c {config}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def machine() -> str:
    """What this machine is."""
    here = description()
    return (
        f"{here['name']}: {here['processor']}, {here['threads']} processor threads, "
        f"{here['memory_gb']:.0f} GB of memory"
    )


@app.command()
def bench(
    size: Annotated[str, typer.Option(help="Of the file to download.")] = "1GB",
    record_size: Annotated[str, typer.Option("--record-size", help="Of the file to record.")] = "5GB",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to take the median of.")] = 3,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Directory on the disk to use.", show_default="temporary")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure recording, serving, fetching and verifying datasets on this machine.

    Example: python scripts/bench_dataset.py --size 100MB --record-size 500MB --rounds 1
    """
    settings = Settings(parse_quota(size), parse_quota(record_size), rounds)
    with tempfile.TemporaryDirectory(dir=directory, prefix="bench-dataset-") as room:
        figures = Bench(settings, Path(room), lambda line: typer.echo(line, err=True)).run()
    missed = [name for name in GOALS if name in figures and not met(name, figures[name])]
    figures = {name: round(value, 4) for name, value in figures.items()}
    if as_json:
        typer.echo(json.dumps({"machine": machine(), **figures, "missed": missed}))
    else:
        typer.echo(machine())
        for name, value in figures.items():
            typer.echo(f"{name:22} {value:10.3f}   {goal_of(name)}".rstrip())
    if missed:
        raise GoalMissedError("missed: " + ", ".join(f"{name} {goal_of(name)}" for name in missed))


if __name__ == "__main__":
    sys.exit(run(app, program="bench_dataset.py"))
