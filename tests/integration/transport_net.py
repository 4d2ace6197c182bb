"""A small subnet for the transport tests: development keys, a metagraph, an axon on a loopback port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tensorage.chain.auth import sign_request
from tensorage.chain.types import BlockRef, Endpoint, Metagraph, Neuron
from tensorage.chain.wallet import Hotkey
from tensorage.transport.axon import Access, Axon, Call, Reply
from tensorage.transport.dendrite import Peer
from tensorage.transport.limits import Limits
from tensorage.transport.nonces import SqliteNonceStore

MINER = Hotkey.from_uri("//Alice")
VALIDATOR = Hotkey.from_uri("//Bob")
OTHER_MINER = Hotkey.from_uri("//Charlie")
STRANGER = Hotkey.from_uri("//Eve")


def neuron(
    uid: int, key: Hotkey, endpoint: Endpoint | None = None, *, permit: bool = False, registered_at: int = 0
) -> Neuron:
    return Neuron(
        uid=uid,
        hotkey=key.ss58,
        coldkey=key.ss58,
        endpoint=endpoint,
        validator_permit=permit,
        active=True,
        tao_stake=1000.0 if permit else 0.0,
        total_stake=1000.0 if permit else 0.0,
        alpha_stake=0.0,
        last_update=0,
        registered_at=registered_at,
        incentive=0.0,
        dividends=0.0,
        consensus=0.0,
        emission=0.0,
    )


METAGRAPH = Metagraph(
    7,
    BlockRef(1, bytes(32)),
    360,
    VALIDATOR.ss58,
    (neuron(0, MINER), neuron(1, VALIDATOR, permit=True), neuron(2, OTHER_MINER)),
)


async def echo(call: Call) -> Reply:
    """Says who asked and what: enough to see that nothing was lost on the way."""
    return f"{call.caller.uid} {dict(call.path)} {dict(call.query)} ".encode() + call.body


@asynccontextmanager
async def serving(tmp_path: Path, *, limits: Limits | None = None, **options: Any) -> AsyncIterator[Axon]:
    """A miner's axon on a free loopback port with an echo for validators and one for anybody registered."""
    store = SqliteNonceStore(tmp_path / "nonces.sqlite")
    options = {"metagraph": lambda: METAGRAPH, **options}
    axon = Axon(MINER.ss58, role="miner", host="127.0.0.1", port=0, nonces=store, limits=limits, **options)
    axon.route("POST", "/v1/echo", echo, access=Access.VALIDATOR)
    axon.route("GET", "/v1/echo/{name}", echo, access=Access.REGISTERED)
    try:
        await axon.start()
        yield axon
    finally:
        await axon.stop()
        store.close()


def peer(axon: Axon, key: Hotkey = MINER) -> Peer:
    return Peer(key.ss58, Endpoint("127.0.0.1", axon.port))


def signed(
    key: Hotkey, method: str, target: str, body: bytes = b"", *, receiver: Hotkey = MINER, **options: Any
) -> dict[str, str]:
    return sign_request(key, method=method, path=target, body=body, receiver=receiver.ss58, **options)


async def ask(
    axon: Axon, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> httpx.Response:
    """One plain HTTP request, exactly as given."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.request(
            method, f"http://127.0.0.1:{axon.port}{target}", content=body, headers=headers or {}
        )


async def say(axon: Axon, *pieces: bytes, pause: float = 0.0, patience: float = 20.0) -> bytes:
    """Everything that the axon answers to raw bytes, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", axon.port)
    heard = asyncio.create_task(reader.read(-1))
    try:
        for piece in pieces:
            if heard.done():
                break
            writer.write(piece)
            await asyncio.sleep(pause)
        return await asyncio.wait_for(heard, patience)
    finally:
        writer.close()
