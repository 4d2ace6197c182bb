"""Who is admitted to a route for clients: keys and hotkeys that it knows, over real sockets."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from transport_net import MINER, OTHER_MINER, STRANGER, VALIDATOR, ask, peer, serving, signed

from tensorage.encoding import sha256
from tensorage.errors import RequestError, StaleChainError, StorageError
from tensorage.keyauth import SigningKey
from tensorage.transport.axon import Access, Axon, Call, Client, Reply
from tensorage.transport.dendrite import Dendrite, Refused
from tensorage.transport.limits import Limits, Rate

KEY = SigningKey(sha256(b"a client"))
OTHER_KEY = SigningKey(sha256(b"another client"))
UNKNOWN = SigningKey(sha256(b"nobody's client"))


def knows(client: Client, path: Mapping[str, str]) -> bool:
    """The two keys, and a hotkey that is not registered, may read "file"."""
    allowed = {KEY.public_key, OTHER_KEY.public_key, STRANGER.public_key, VALIDATOR.public_key}
    return path["name"] == "file" and client.public_key in allowed


async def who(call: Call) -> Reply:
    client = call.signer
    uid = None if call.caller is None else call.caller.uid
    return f"{client.kind} {client.name} {uid} {client.nonce_ns > 0} {client.signature is not None}".encode()


def attach(axon: Axon) -> None:
    axon.route("GET", "/v1/files/{name}", who, access=Access.CLIENT, knows=knows)
    axon.route("POST", "/v1/files/{name}", who, access=Access.CLIENT, knows=knows)


def by_key(
    key: SigningKey,
    target: str = "/v1/files/file",
    body: bytes = b"",
    *,
    method: str = "GET",
    receiver: bytes = MINER.public_key,
    age: float = 0.0,
) -> dict[str, str]:
    nonce_ns = time.time_ns() - int(age * 1e9)
    return key.sign_request(method=method, path=target, body=body, receiver=receiver, nonce_ns=nonce_ns)


def kept(tmp_path: Path) -> list[str]:
    """Whose nonces are in the store."""
    with sqlite3.connect(tmp_path / "nonces.sqlite") as db:
        return [str(name) for (name,) in db.execute("SELECT hotkey FROM nonces ORDER BY hotkey")]


def refused(response: httpx.Response, status: int, kind: str) -> str:
    body = response.json()
    assert (response.status_code, body["error"]) == (status, kind), body
    return str(body["message"])


async def test_a_client_signs_with_a_key_or_a_hotkey_registered_or_not(tmp_path):
    async with serving(tmp_path) as axon, Dendrite(KEY, allow_private=True) as dendrite:
        attach(axon)

        async def answer(**options: object) -> str:
            response = await dendrite.request(peer(axon), "GET", "/v1/files/file?leaf=0&count=1", **options)
            return response.body.decode()

        assert await answer() == f"key {KEY.public_key.hex()} None True True"
        assert await answer(key=OTHER_KEY) == f"key {OTHER_KEY.public_key.hex()} None True True"
        assert await answer(key=STRANGER) == f"hotkey {STRANGER.ss58} None True False"
        assert await answer(key=VALIDATOR) == f"hotkey {VALIDATOR.ss58} 1 True False"
        with pytest.raises(Refused, match="unauthenticated"):
            await answer(signed=False)


async def test_who_is_not_known_is_forbidden_and_leaves_nothing_in_the_nonce_store(tmp_path):
    async with serving(tmp_path) as axon:
        attach(axon)
        for _ in range(20):
            unknown = SigningKey(sha256(str(time.time_ns()).encode()))
            refused(await ask(axon, "GET", "/v1/files/file", headers=by_key(unknown)), 403, "forbidden")
        headers = signed(OTHER_MINER, "GET", "/v1/files/file")
        refused(await ask(axon, "GET", "/v1/files/file", headers=headers), 403, "forbidden")
        headers = by_key(KEY, "/v1/files/another")
        refused(await ask(axon, "GET", "/v1/files/another", headers=headers), 403, "forbidden")
        assert kept(tmp_path) == []
        await ask(axon, "GET", "/v1/files/file", headers=by_key(KEY))
        assert kept(tmp_path) == [KEY.public_key.hex()]


async def test_a_request_of_a_key_is_accepted_once_also_over_a_restart_and_by_two_axons(tmp_path):
    headers = by_key(KEY)
    async with serving(tmp_path) as one, serving(tmp_path) as two:
        attach(one)
        attach(two)
        answers = await asyncio.gather(
            *(ask(axon, "GET", "/v1/files/file", headers=headers) for axon in (one, two) for _ in range(3))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5
    async with serving(tmp_path) as axon:
        attach(axon)
        refused(await ask(axon, "GET", "/v1/files/file", headers=headers), 401, "unauthenticated")


@pytest.mark.parametrize(
    "change", ["receiver", "body", "query", "path", "method", "key", "old", "early", "both", "none"]
)
async def test_what_a_key_did_not_sign_like_this_for_us_and_now_is_unauthenticated(tmp_path, change):
    method, target, body = "POST", "/v1/files/file?a=1", b"body"
    age = {"old": 11.0, "early": -60.0}.get(change, 0.0)
    receiver = OTHER_MINER.public_key if change == "receiver" else MINER.public_key
    headers = by_key(
        KEY, target, body, method="PUT" if change == "method" else method, receiver=receiver, age=age
    )
    if change == "body":
        body = b"Body"
    if change == "query":
        target = "/v1/files/file?a=2"
    if change == "path":
        target = "/v1/files/%66ile?a=1"
    if change == "key":
        headers["x-tensorage-key"] = OTHER_KEY.public_key.hex()
    if change == "both":
        headers |= signed(VALIDATOR, method, target, body)
    if change == "none":
        headers = {}
    async with serving(tmp_path) as axon:
        attach(axon)
        refused(await ask(axon, method, target, body, headers), 401, "unauthenticated")
    assert kept(tmp_path) == []


async def test_a_key_is_no_neuron(tmp_path):
    async with serving(tmp_path) as axon:
        headers = by_key(KEY, "/v1/ping")
        refused(await ask(axon, "GET", "/v1/ping", headers=headers), 401, "unauthenticated")


async def test_clients_are_served_while_the_metagraph_is_stale(tmp_path):
    def stale():
        raise StaleChainError("the metagraph is 900 s old")

    async with serving(tmp_path, metagraph=stale) as axon:
        attach(axon)
        answer = await ask(axon, "GET", "/v1/files/file", headers=by_key(KEY))
        assert answer.status_code == 200
        headers = signed(VALIDATOR, "GET", "/v1/files/file")
        assert b" None " in (await ask(axon, "GET", "/v1/files/file", headers=headers)).content


async def test_two_clients_behind_one_address_have_a_rate_each(tmp_path):
    limits = Limits(per_hotkey=Rate(per_second=0.01, burst=3))
    async with serving(tmp_path, limits=limits) as axon:
        attach(axon)

        async def statuses(key: SigningKey, times: int) -> list[int]:
            asked = [await ask(axon, "GET", "/v1/files/file", headers=by_key(key)) for _ in range(times)]
            return [answer.status_code for answer in asked]

        assert await statuses(KEY, 5) == [200, 200, 200, 429, 429]
        assert await statuses(OTHER_KEY, 3) == [200, 200, 200]
        assert await statuses(UNKNOWN, 5) == [403] * 5


async def test_two_clients_behind_one_address_may_move_a_gigabyte_each_and_a_flood_may_not(tmp_path):
    # A gigabyte in 4 MiB shards over 12 miners, ten of them data: each sees two dozen requests for it.
    async with serving(tmp_path) as axon:
        attach(axon)
        async with Dendrite(None, allow_private=True, per_peer=8) as dendrite:

            async def reads(key: SigningKey) -> None:
                for _ in range(100):
                    await dendrite.request(peer(axon), "GET", "/v1/files/file", key=key, deadline=30)

            await asyncio.gather(reads(KEY), reads(OTHER_KEY))
        async with httpx.AsyncClient(trust_env=False, timeout=20) as flood:
            url = f"http://127.0.0.1:{axon.port}/v1/files/file"
            statuses = [(await flood.get(url)).status_code for _ in range(1200)]
        assert set(statuses) == {401, 429}


async def test_what_fails_while_asking_whom_the_route_knows_admits_nobody(tmp_path, caplog):
    errors: list[Exception] = [
        RequestError("unknown", "no such file"),
        StorageError("the disk of the host is full"),
        ZeroDivisionError("secret of the host"),
    ]

    def failing(client: Client, path: Mapping[str, str]) -> bool:
        raise errors[int(path["number"])]

    async with serving(tmp_path) as axon:
        axon.route("GET", "/v1/failing/{number}", who, access=Access.CLIENT, knows=failing)
        for number, status, kind in ((0, 404, "unknown"), (1, 500, "internal"), (2, 500, "internal")):
            target = f"/v1/failing/{number}"
            answer = await ask(axon, "GET", target, headers=by_key(KEY, target))
            assert "host" not in refused(answer, status, kind)
    assert kept(tmp_path) == []


async def test_a_route_for_clients_and_no_other_says_whom_it_knows(tmp_path):
    async with serving(tmp_path) as axon:
        with pytest.raises(ValueError, match="whom it knows"):
            axon.route("GET", "/v1/a", who, access=Access.CLIENT)
        with pytest.raises(ValueError, match="whom it knows"):
            axon.route("GET", "/v1/a", who, access=Access.ANYONE, knows=knows)


async def test_anyone_may_ask_where_nothing_is_signed_and_is_nobody_there(tmp_path):
    async def neuron(call: Call) -> Reply:
        return call.neuron.hotkey.encode()

    async def nobody(call: Call) -> Reply:
        assert call.caller is None
        assert call.client is None
        return call.body

    async with serving(tmp_path) as axon, Dendrite(None, allow_private=True) as dendrite:
        axon.route("POST", "/v1/open", nobody, access=Access.ANYONE, max_body=10)
        axon.route("GET", "/v1/neuron", neuron, access=Access.ANYONE)
        axon.route("GET", "/v1/signer", who, access=Access.ANYONE)
        assert (await dendrite.request(peer(axon), "POST", "/v1/open", body=b"hello")).body == b"hello"
        refused(await ask(axon, "POST", "/v1/open", b"12345678901"), 413, "too_large")
        headers = signed(VALIDATOR, "GET", "/v1/neuron")
        refused(await ask(axon, "GET", "/v1/neuron", headers=headers), 403, "forbidden")
        refused(await ask(axon, "GET", "/v1/signer", headers=by_key(KEY)), 401, "unauthenticated")


async def test_a_route_has_a_time_of_its_own(tmp_path):
    async def slow(call: Call) -> Reply:
        await asyncio.sleep(2.0)
        return b"done"

    async with (
        serving(tmp_path, limits=Limits(total_seconds=0.2)) as axon,
        Dendrite(None, allow_private=True) as dendrite,
    ):
        axon.route("GET", "/v1/long", slow, access=Access.ANYONE, total_seconds=20)
        axon.route("GET", "/v1/short", slow, access=Access.ANYONE)
        # Longer than the limits' time, and than the moment for which a connection outlives it.
        assert (await dendrite.request(peer(axon), "GET", "/v1/long", deadline=20)).body == b"done"
        with pytest.raises(Refused, match="no answer in time"):
            await dendrite.request(peer(axon), "GET", "/v1/short", deadline=20)
    async with serving(tmp_path) as axon, Dendrite(None, allow_private=True) as dendrite:
        axon.route("GET", "/v1/shorter", slow, access=Access.ANYONE, total_seconds=0.2)
        with pytest.raises(Refused, match="no answer in time"):
            await dendrite.request(peer(axon), "GET", "/v1/shorter", deadline=20)


async def test_requests_of_a_key_in_one_moment_have_nonces_of_their_own(tmp_path, monkeypatch):
    now = time.time_ns()
    monkeypatch.setattr("tensorage.transport.dendrite.time.time_ns", lambda: now)
    async with serving(tmp_path) as axon, Dendrite(KEY, allow_private=True) as dendrite:
        attach(axon)
        for _ in range(5):
            await dendrite.request(peer(axon), "GET", "/v1/files/file")
    assert len(kept(tmp_path)) == 5
