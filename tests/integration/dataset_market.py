"""A published dataset for tests: a real store, a real server on loopback, and bundles made of given bytes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from tensorage.dataset.identity import EthSigner, Signer
from tensorage.dataset.server.context import Context, Membership
from tensorage.dataset.server.selling import Sale
from tensorage.dataset.server.service import LIMITS, Service, tls_context
from tensorage.dataset.store import Store
from tensorage.transport.limits import Limits

ID = "sft-demo"
OWNER_TOKEN = "tensorage-owner-" + "0" * 48
DORA = EthSigner(sha256(b"dora").digest())


class Clock:
    """Unix seconds that a test moves."""

    def __init__(self, now: int = 1_760_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def make_bundle(directory: Path, data: bytes) -> Path:
    """A bundle whose artifact is `data`."""
    directory.mkdir(parents=True)
    (directory / "sft.jsonl").write_bytes(data)
    (directory / "manifest.json").write_text(json.dumps({"files": ["sft.jsonl"]}))
    return directory


def record(store: Store, directory: Path, data: bytes, *, id: str = ID, signer: Signer = DORA) -> int:
    """Record `data` as the next version of a dataset, as the commands do; returns its number."""
    if id not in {dataset.id for dataset in store.datasets()}:
        store.create(id, signer.owner)
    seq = len(store.log(id).entries) + 1
    ingested = store.ingest(make_bundle(directory / f"{id}-{seq}", data))
    return store.append(id, ingested, signer, 1_700_000_000 + seq).entry.seq


@dataclass
class Shop:
    """The server, its store, and a client that sends no token."""

    home: Path
    store: Store
    service: Service
    client: httpx.AsyncClient
    clock: Clock
    versions: list[bytes] = field(default_factory=list)

    @property
    def bundles(self) -> Path:
        return self.home.parent / "bundles"

    def add(self, data: bytes) -> int:
        """Record a version, while it is being served."""
        self.versions.append(data)
        return record(self.store, self.bundles, data)

    def token(self, max_version: int, **more: Any) -> str:
        return self.store.mint(ID, label="m", max_version=max_version, **more)

    async def get(self, path: str, token: str | None = None, **headers: str) -> httpx.Response:
        """GET a path below the dataset's."""
        return await self.client.get(f"/dataset/{ID}/{path}", headers=auth(token) | dashed(headers))


def auth(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def dashed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def told(response: httpx.Response) -> tuple[int, str | None]:
    """The status, and the kind of the error if it is one."""
    if response.is_success or response.status_code == 304 or not response.content:
        return response.status_code, None
    body = response.json()
    assert set(body) >= {"error", "message"}, body
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]


@asynccontextmanager
async def open_shop(
    directory: Path,
    *versions: bytes,
    membership: Membership = "invite",
    limits: Limits = LIMITS,
    sale: Sale | None = None,
    store: Store | None = None,
    tls: tuple[Path, Path] | None = None,
    **more: Any,
) -> AsyncIterator[Shop]:
    """A shop with these versions."""
    clock = Clock()
    home = directory / "home"
    with store or Store(home, clock=clock) as opened:
        for data in versions:
            record(opened, directory / "bundles", data)
        context = Context(ID, opened, DORA, OWNER_TOKEN, membership, clock, sale=sale, **more)
        service = Service(context, limits=limits, tls=tls and tls_context(*tls))
        await service.start()
        try:
            url = f"http{'s' if tls else ''}://127.0.0.1:{service.port}"
            trusted = ssl.create_default_context(cafile=tls and str(tls[0]))
            trusted.check_hostname = False
            async with httpx.AsyncClient(base_url=url, verify=trusted, timeout=30, trust_env=False) as client:
                yield Shop(home, opened, service, client, clock, list(versions))
        finally:
            await service.drain(1)


COMMAND = [sys.executable, "-m", "tensorage", "dataset"]


class Server:
    """A running `publish --json`."""

    def __init__(self, home: Path, *options: str, id: str = ID, path: str | None = None) -> None:
        environment = os.environ | {"TENSORAGE_DATASET_HOME": str(home)}
        environment["PATH"] = os.environ["PATH"] if path is None else path
        command = [*COMMAND, "publish", id, "--json", "--signer", "secp256k1", *options]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(20)
            self._listener.join(20)
            raise AssertionError(f"exit {self.process.returncode}: {''.join(self.said)}")
        self.told: dict[str, Any] = json.loads(line)
        self.url: str = self.told["local_addr"]

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        self._listener.join(20)
        return code

    def until_said(self, pattern: str) -> str:
        for _ in range(400):
            for line in list(self.said):
                if re.search(pattern, line):
                    return line
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} was not said: {self.said}")


@contextlib.contextmanager
def publishing(home: Path, *options: str, **more: Any) -> Iterator[Server]:
    server = Server(home, *options, **more)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(20)
