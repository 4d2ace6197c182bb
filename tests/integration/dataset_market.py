"""A published dataset for tests: a real store, a real server on loopback, and bundles made of given bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from tensorage.dataset.identity import EthSigner, Signer
from tensorage.dataset.server.context import Context, Membership
from tensorage.dataset.server.selling import Sale
from tensorage.dataset.server.service import LIMITS, Service
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
    **more: Any,
) -> AsyncIterator[Shop]:
    """A shop with these versions."""
    clock = Clock()
    home = directory / "home"
    with store or Store(home, clock=clock) as opened:
        for data in versions:
            record(opened, directory / "bundles", data)
        context = Context(ID, opened, DORA, OWNER_TOKEN, membership, clock, sale=sale, **more)
        service = Service(context, limits=limits)
        await service.start()
        try:
            url = f"http://127.0.0.1:{service.port}"
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
                yield Shop(home, opened, service, client, clock, list(versions))
        finally:
            await service.drain(1)
