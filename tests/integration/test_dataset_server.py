"""The gated server from outside: who gets what, in which order faults are told, and what is served when."""

import hashlib
import itertools
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from dataset_market import DORA, ID, OWNER_TOKEN, Shop, auth, open_shop, record, told
from fastapi import FastAPI

from tensorage.dataset import identity, wire
from tensorage.dataset.entry import HEAD_SECONDS
from tensorage.dataset.identity import EthSigner
from tensorage.dataset.log import verify_log
from tensorage.dataset.server.gate import Access, Route

V1, V2 = b'{"a":1}\n' * 1000, b'{"b":2}\n' * 150_000

#: Every route about the dataset: what opens it, and the status for who may.
ANYONE = ["versions", "head"]
MEMBERS = ["verify"]
VERSIONED = ["download", "chunks", "manifest", "sources"]
OWNERS = ["status"]


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, V1, V2) as opened:
        yield opened


async def test_every_route_opens_to_those_whom_it_is_for_and_to_nobody_else(shop: Shop) -> None:
    revoked, expired = shop.token(2), shop.token(2, expires=shop.clock.now + 10)
    shop.store.revoke(ID, hashlib.sha256(revoked.encode()).hexdigest()[:16])
    shop.clock.now += 10
    record(shop.store, shop.bundles, b"{}\n", id="another", signer=DORA)
    callers = {
        None: (401, "auth_required"),
        "tensorage-member-" + "0" * 64: (403, "not_a_member"),
        "nonsense": (403, "not_a_member"),
        shop.store.mint("another", label="m", max_version=9): (403, "not_a_member"),
        revoked: (403, "token_revoked"),
        expired: (403, "token_expired"),
    }
    low, full = shop.token(1), shop.token(2)
    good = {low: (200, None), full: (200, None), OWNER_TOKEN: (200, None)}
    too_low = good | {low: (403, "version_not_entitled")}
    for route in ANYONE:
        for token in [*callers, *good]:
            assert told(await shop.get(route, token)) == (200, None), (route, token)
    for route in MEMBERS:
        for token, outcome in (callers | good).items():
            assert told(await shop.get(route, token)) == outcome, (route, token)
    for route, (query, outcomes) in itertools.product(
        VERSIONED,
        {"?version=1": callers | good, "?version=2": callers | too_low, "": callers | too_low}.items(),
    ):
        for token, outcome in outcomes.items():
            assert told(await shop.get(route + query, token)) == outcome, (route, query, token)
    for token in [*callers, low, full]:
        assert told(await shop.get("status", token)) == (401, "owner_required")
        reply = await shop.client.post("/auth/device/approve", json={"user_code": "A"}, headers=auth(token))
        assert told(reply) == (401, "owner_required")
    assert told(await shop.get("status", OWNER_TOKEN)) == (200, None)


async def test_faults_are_told_in_the_order_of_the_table(shop: Shop) -> None:
    stranger, low = "tensorage-member-" + "0" * 64, shop.token(1)

    async def of(path: str, token: str | None = None) -> tuple[int, str | None]:
        return told(await shop.client.get(path, headers=auth(token)))

    for route in VERSIONED:  # the id, a token, the version, membership, entitlement
        assert await of(f"/dataset/other/{route}?version=9") == (404, "unknown_dataset")
        assert await of(f"/dataset/{ID}/{route}?version=9") == (401, "auth_required")
        for bad in ("9", "0", "-1", "x", "", "1.0", "01", "1&version=1", "9" * 30, "%D9%A1"):
            for token in (stranger, low, OWNER_TOKEN):
                assert await of(f"/dataset/{ID}/{route}?version={bad}", token) == (404, "unknown_version")
        assert await of(f"/dataset/{ID}/{route}?version=2", stranger) == (403, "not_a_member")
        assert await of(f"/dataset/{ID}/{route}?version=2", low) == (403, "version_not_entitled")
    for token, outcome in ((None, (401, "auth_required")), (stranger, (403, "not_a_member"))):
        assert await of("/dataset/other/verify", token) == outcome  # the token before the id
    assert await of("/dataset/other/verify", low) == (404, "unknown_dataset")
    assert await of("/dataset/other/status", low) == (401, "owner_required")
    assert await of("/dataset/other/status", OWNER_TOKEN) == (404, "unknown_dataset")
    for public in ANYONE:
        assert await of(f"/dataset/other/{public}") == (404, "unknown_dataset")
    for id in ("other", ID):
        reply = await shop.client.post(f"/dataset/{id}/join/paid")
        assert told(reply) == (503, "paid_join_disabled")
    assert await of(f"/dataset/{ID}/anchor") == (404, "not_anchored")
    assert await of("/nowhere") == (404, "not_found")
    for method, path in (("DELETE", f"/dataset/{ID}/download"), ("GET", "/auth/device/code")):
        reply = await shop.client.request(method, path)
        assert told(reply) == (405, "method_not_allowed")
        assert reply.headers["allow"]


async def test_only_one_well_formed_bearer_token_counts(shop: Shop) -> None:
    token = shop.token(2)
    path = f"/dataset/{ID}/verify"
    for value in (f"bearer {token}", f"BEARER  {token}"):
        assert (await shop.client.get(path, headers={"Authorization": value})).status_code == 200
    for value in (token, f"Basic {token}", "Bearer", f"Bearer {token} {token}", "Bearer " + "a" * 300):
        reply = await shop.client.get(path, headers={"Authorization": value})
        assert told(reply) == (401, "auth_required")
        assert reply.headers["www-authenticate"] == "Bearer"
    twice = [("Authorization", f"Bearer {token}")] * 2
    assert told(await shop.client.get(path, headers=twice)) == (401, "auth_required")
    assert told(await shop.client.get(f"{path}?token={token}")) == (401, "auth_required")


async def test_a_member_gets_the_signed_bytes_with_all_that_proves_them(shop: Shop) -> None:
    log, head = wire.read_log((await shop.get("versions")).content)
    assert verify_log(log, owner=DORA.owner, verify=identity.verify, id=ID).seq == 2
    assert head is not None
    entry = log.at(2).entry
    assert identity.verify(DORA.owner, head.head.hash, head.signature)
    assert wire.read_head((await shop.get("head")).content) == head
    token = shop.token(2)
    reply = await shop.get("download", token)
    assert reply.content == V2
    assert reply.headers["etag"] == f'"{hashlib.sha256(V2).hexdigest()}"'
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.headers["accept-ranges"] == "bytes"
    assert "last-modified" in reply.headers
    for answer in (reply, await shop.get("manifest", token), await shop.get("chunks", token)):
        assert answer.headers["x-dataset-version"] == "2"
        assert answer.headers["x-dataset-manifest-hash"] == entry.manifest_hash.hex()
        assert answer.headers["x-dataset-file-hash"] == entry.file_hash.hex()
    refused = await shop.get("download?version=9", token)
    for answer in (reply, refused, await shop.get("verify", token), await shop.get("head")):
        assert wire.read_head_header(answer.headers["x-dataset-head"]) == head
    leaves = (await shop.get("chunks", token)).content
    assert len(leaves) == 32 * 2
    files = wire.read_manifest((await shop.get("manifest", token)).content)
    assert [(file.name, file.size) for file in files] == [("sft.jsonl", len(V2))]
    verdict = {"valid": True, "head": 2, "owner": DORA.owner}
    assert (await shop.get("verify", token)).json() == verdict
    assert (await shop.get("sources", token)).json() == {"mirrors": [], "subnet": None}
    status = (await shop.get("status", OWNER_TOKEN)).json()
    assert (status["id"], status["groupID"], status["membership"]) == (ID, ID, "invite")
    assert (status["versions"], status["entitlements"]) == (2, 1)


async def test_head_answers_like_get_without_the_bytes(shop: Shop) -> None:
    token = shop.token(2)
    for route in ["versions", "head", *MEMBERS, *VERSIONED]:
        got = await shop.get(route, token)
        head = await shop.client.head(f"/dataset/{ID}/{route}", headers=auth(token))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
    head = await shop.client.head(f"/dataset/{ID}/download", headers=auth(token) | {"Range": "bytes=1-2"})
    assert (head.status_code, head.headers["content-length"]) == (206, "2")
    assert (await shop.client.head(f"/dataset/{ID}/download")).status_code == 401


async def test_a_version_that_is_recorded_while_serving_is_served_at_once(shop: Shop) -> None:
    full = shop.token(3)
    assert told(await shop.get("download?version=3", full)) == (404, "unknown_version")
    for number in range(3, 6):
        data = b"%d\n" % number * 1000
        shop.add(data)
        assert (await shop.get(f"download?version={number}", OWNER_TOKEN)).content == data
        log, head = wire.read_log((await shop.get("versions")).content)
        assert head is not None
        assert (len(log.entries), head.head.seq) == (number, number)
    assert (await shop.get("download?version=3", full)).status_code == 200
    assert told(await shop.get("download", full)) == (403, "version_not_entitled")


async def test_head_statements_are_signed_again_in_time(shop: Shop) -> None:
    first = wire.read_head((await shop.get("head")).content).head
    shop.clock.now = first.issued + HEAD_SECONDS // 2
    assert wire.read_head((await shop.get("head")).content).head == first
    shop.clock.now += 1
    second = wire.read_head((await shop.get("head")).content).head
    assert (second.issued, second.seq) == (shop.clock.now, 2)
    assert wire.read_log((await shop.get("versions")).content)[1].head == second  # type: ignore[union-attr]


async def test_a_file_that_was_edited_behind_the_servers_back_is_not_served(shop: Shop) -> None:
    token = shop.token(2)
    path = shop.store.artifact(ID, 2).path
    assert (await shop.get("download", token)).content == V2
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(500_000)
        file.write(b"x")
    assert told(await shop.get("download", token)) == (404, "artifact_missing")
    assert told(await shop.get("download", token, Range="bytes=0-1")) == (404, "artifact_missing")
    assert (await shop.get("download?version=1", token)).content == V1
    path.write_bytes(V2)
    assert (await shop.get("download", token)).content == V2
    path.unlink()
    path.symlink_to(shop.store.artifact(ID, 1).path)
    assert told(await shop.get("download", token)) == (404, "artifact_missing")
    path.unlink()
    assert told(await shop.get("download", token)) == (404, "artifact_missing")
    shop.store.artifact(ID, 1).path.unlink()
    assert told(await shop.get("download?version=1", token)) == (503, "no_artifacts")


async def test_a_file_that_is_edited_while_it_is_sent_is_broken_off(shop: Shop) -> None:
    data = bytes(64 << 20)
    shop.add(data)
    path = shop.store.artifact(ID, 3).path
    got = 0
    async with shop.client.stream("GET", f"/dataset/{ID}/download", headers=auth(OWNER_TOKEN)) as reply:
        with pytest.raises(Exception, match=r"peer closed|incomplete"):
            async for piece in reply.aiter_raw():
                if not got:
                    path.chmod(0o600)
                    with path.open("r+b") as file:
                        file.seek(60 << 20)
                        file.write(b"other bytes")
                got += len(piece)
                assert b"o" not in piece
    assert 0 < got < len(data)


async def test_a_log_that_does_not_hold_is_not_served(tmp_path: Path) -> None:
    async with open_shop(tmp_path, V1, V2) as shop:
        shop.store._write(lambda db: db.execute("UPDATE entries SET time = time + 1 WHERE seq = 2"))
        async with open_shop(tmp_path / "again", store=_reopened(shop)) as broken:
            for route in ("versions", "head", "download"):
                assert told(await broken.get(route, OWNER_TOKEN)) == (503, "log_invalid")
            verdict = (await broken.get("verify", OWNER_TOKEN)).json()
            assert (verdict["valid"], verdict["head"]) == (False, 2)
            assert verdict["error"]


def _reopened(shop: Shop):
    from tensorage.dataset.store import Store

    return Store(shop.home, clock=shop.clock)


async def test_a_dataset_that_was_handed_on_is_served_no_longer_than_its_new_owner_says(shop: Shop) -> None:
    frank = EthSigner(hashlib.sha256(b"frank").digest())
    shop.store.rotate(ID, DORA, frank, shop.clock.now)
    assert told(await shop.get("download", OWNER_TOKEN)) == (503, "log_invalid")
    shop.store.sign_head(ID, frank, shop.clock.now)
    record(shop.store, shop.bundles, b"3", signer=frank)
    shop.store.sign_head(ID, frank, shop.clock.now)
    assert (await shop.get("download", OWNER_TOKEN)).content == b"3"


async def test_workers_become_members_by_codes(shop: Shop) -> None:
    issued = await shop.client.post("/auth/device/code", json={"worker": "gpu-7"})
    code = issued.json()
    assert (code["expires_in"], code["interval"]) == (900, 5)
    for body in (b"", b"not json", b"[]", b'{"worker": 7}', b"[" * 10_000):
        assert (await shop.client.post("/auth/device/code", content=body)).status_code == 200

    async def post(what: str, token: str | None = None, **body: object) -> tuple[int, object]:
        reply = await shop.client.post(f"/auth/device/{what}", json=body, headers=auth(token))
        return reply.status_code, reply.json().get("error") or reply.json()

    device, user = code["device_code"], code["user_code"]
    for bad in ({}, {"device_code": ""}, {"device_code": 7}, {"device_code": None}):
        assert await post("token", **bad) == (400, "invalid_request")
    assert await post("token", device_code="0" * 64) == (404, "invalid_grant")
    assert await post("token", device_code=device) == (200, {"status": "authorization_pending"})
    assert await post("token", device_code=device) == (429, "slow_down")
    for bad in ({}, {"user_code": ""}, {"user_code": ["A"]}):
        assert await post("approve", OWNER_TOKEN, **bad) == (400, "invalid_request")
    assert await post("approve", OWNER_TOKEN, user_code="AAAA-AAAA") == (404, "invalid_code")
    approved = (200, {"status": "approved", "worker": "gpu-7"})
    assert await post("approve", OWNER_TOKEN, user_code=f" {user.lower()} ") == approved
    assert await post("approve", OWNER_TOKEN, user_code=user) == (409, "already_used")
    status, answer = await post("token", device_code=device)
    assert isinstance(answer, dict)
    assert (status, answer["status"], answer["group_id"]) == (200, "authorized", ID)
    assert await post("token", device_code=device) == (404, "invalid_grant")
    assert (await shop.get("download", answer["token"])).content == V2
    (member,) = shop.store.members(ID)
    assert (member.label, member.max_version) == ("gpu-7", 2)
    shop.add(b"3")
    assert told(await shop.get("download", answer["token"])) == (403, "version_not_entitled")

    shop.clock.now += 60  # buckets are of a steady clock: codes may come from one address only so often
    late = (await shop.client.post("/auth/device/code")).json()
    shop.clock.now += 900
    assert await post("approve", OWNER_TOKEN, user_code=late["user_code"]) == (410, "expired_code")
    assert await post("token", device_code=late["device_code"]) == (410, "expired_token")


async def test_with_open_membership_who_asks_is_admitted(tmp_path: Path) -> None:
    async with open_shop(tmp_path, V1, membership="open") as shop:
        code = (await shop.client.post("/auth/device/code")).json()
        body = {"device_code": code["device_code"]}
        token = (await shop.client.post("/auth/device/token", json=body)).json()["token"]
        assert (await shop.get("download", token)).content == V1


async def test_downloads_are_noted_for_each_token_and_no_token_is_logged(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = shop.token(2)
    await shop.get("download", token, Range="bytes=0-99")
    await shop.get("download", token, Range="bytes=200-299,400-499")
    await shop.get("download?version=1", token)
    await shop.get("download", OWNER_TOKEN)
    await shop.client.head(f"/dataset/{ID}/download", headers=auth(token))
    await shop.get("download", "tensorage-member-" + "0" * 64)
    shop.service.desk.close()
    noted = [(found.version, found.start, found.stop) for found in shop.store.downloads(ID)]
    assert noted == [(2, 0, 100), (2, 200, 300), (2, 400, 500), (1, 0, len(V1))]
    assert token not in caplog.text
    assert OWNER_TOKEN not in caplog.text


def test_a_route_without_a_gate_cannot_be_made(shop_app: FastAPI) -> None:
    async def naked(request: object) -> None:
        raise AssertionError

    with pytest.raises(TypeError):
        Route("GET", "/x", None, naked)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Route("GET", "/x", handler=naked)  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError, match="no gate"):
        shop_app.get("/x")(naked)
    paths = {getattr(route, "path", None): type(route).__name__ for route in shop_app.routes}
    assert set(paths.values()) == {"_GatedRoute"}
    below = {path.removeprefix("/dataset/{id}/") for path in paths if path.startswith("/dataset/")}
    assert below == {*ANYONE, *MEMBERS, *VERSIONED, *OWNERS, "anchor", "join/paid"}
    others = {path for path in paths if not path.startswith("/dataset/")}
    assert others == {"/healthz", *(f"/auth/device/{what}" for what in ("code", "token", "approve"))}
    assert {access.value for access in Access} == {"anyone", "owner", "member", "version", "buyer"}


@pytest_asyncio.fixture
async def shop_app(shop: Shop) -> FastAPI:
    app = shop.service.app
    assert isinstance(app, FastAPI)
    return app


async def test_health_is_for_everybody_and_says_nothing(shop: Shop) -> None:
    reply = await shop.client.get("/healthz")
    assert (reply.status_code, reply.content) == (200, b"")
    assert "server" not in reply.headers
