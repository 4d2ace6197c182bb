"""What crowds take from the server: no descriptors, no lines in the log, no memory, and no time of others."""

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import resource
import socket
import sqlite3
import ssl
from pathlib import Path

import pytest
from dataset_market import DORA, ID, OWNER_TOKEN, Shop, auth, make_bundle, open_shop, told
from test_dataset_publish import make_certificate

from tensorage.dataset import wire
from tensorage.dataset.manifest import File, manifest_hash
from tensorage.dataset.members import KEPT_DOWNLOADS
from tensorage.dataset.server.door import SPARE_EACH
from tensorage.dataset.server.handlers import MAX_DOWNLOADS_EACH
from tensorage.dataset.server.notes import MAX_NOTES
from tensorage.transport.limits import Limits, Rate

V1 = bytes(range(256)) * 20


async def test_silent_connections_of_one_address_are_closed_before_the_handshake(tmp_path: Path) -> None:
    limits = Limits(connections_per_address=4)
    async with open_shop(tmp_path, V1, limits=limits, tls=make_certificate(tmp_path)) as shop:
        crowd: list[socket.socket] = []
        try:
            for _ in range(60):
                silent = socket.socket()
                silent.bind(("127.0.0.2", 0))
                silent.settimeout(20)
                crowd.append(silent)
                await asyncio.to_thread(silent.connect, ("127.0.0.1", shop.service.port))
                silent.setblocking(False)
            most = limits.connections_per_address + SPARE_EACH
            for _ in range(100):
                held = [silent for silent in crowd if is_open(silent)]
                if len(held) <= most:
                    break
                await asyncio.sleep(0.05)
            assert len(held) == most
            assert (await shop.get("download", OWNER_TOKEN)).content == V1
            for silent in crowd:
                silent.close()
            for _ in range(100):  # what has gone counts no more
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1",
                        shop.service.port,
                        ssl=ssl.create_default_context(cafile=str(tmp_path / "cert.pem")),
                        server_hostname="data.example",
                        local_addr=("127.0.0.2", 0),
                    )
                    writer.close()
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("the address is shut out for ever")
        finally:
            for silent in crowd:
                silent.close()


def is_open(connection: socket.socket) -> bool:
    """Whether the other end has not closed it."""
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


async def test_a_server_without_descriptors_says_busy_and_not_that_bytes_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    async with open_shop(tmp_path, V1) as shop:
        assert (await shop.get("download", OWNER_TOKEN)).content == V1
        late = socket.socket()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            with pytest.raises(OSError) as full:
                for _ in range(256):
                    taken.append(os.dup(0))
            assert full.value.errno == errno.EMFILE
            late.setblocking(False)
            late.connect_ex(("127.0.0.1", shop.service.port))
            for _ in range(20):
                reply = await shop.get("download", OWNER_TOKEN)
                assert told(reply) == (503, "server_busy")
                assert reply.headers["retry-after"]
        finally:
            late.close()
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await shop.get("download", OWNER_TOKEN)).content == V1
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len([line for line in lines if "not served" in line]) <= 2
    assert [line for line in lines if "no connection can be accepted" in line]
    assert len(lines) <= 4, lines


def add_version_of_many_files(shop: Shop, count: int) -> bytes:
    """Record a version with a long list of files; returns the hash of the list."""
    ingested = shop.store.ingest(make_bundle(shop.bundles / "many", b"many"))
    names = [f"{'x' * 200}-{number:06}" for number in range(count)]
    files = (*ingested.files, *(File(name, 1, bytes(32)) for name in names))
    ingested = dataclasses.replace(ingested, files=files, manifest_hash=manifest_hash(files))
    seq = shop.store.append(ID, ingested, DORA, 1_700_000_100).entry.seq
    return shop.store.artifact(ID, seq).manifest_hash


async def test_manifests_that_nobody_reads_are_bounded_like_downloads(tmp_path: Path) -> None:
    async with open_shop(tmp_path, V1) as shop:
        signed = add_version_of_many_files(shop, 20_000)
        token = shop.token(2)
        whole = await shop.get("manifest", token)
        assert manifest_hash(wire.read_manifest(whole.content)) == signed
        assert whole.headers["cache-control"] == "no-store"
        request = f"GET /dataset/{ID}/manifest HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        held = []
        try:
            for _ in range(MAX_DOWNLOADS_EACH):
                unread = socket.socket()
                held.append(unread)
                unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                unread.settimeout(20)
                await asyncio.to_thread(unread.connect, ("127.0.0.1", shop.service.port))
                unread.sendall(request.encode())
                assert (await asyncio.to_thread(unread.recv, 12)) == b"HTTP/1.1 200"
            for route in ("manifest", "chunks", "download"):
                assert told(await shop.get(route, token)) == (429, "too_many_downloads")
            assert (await shop.get("head")).status_code == 200
        finally:
            for unread in held:
                unread.close()
        for _ in range(100):
            if (await shop.get("manifest", token)).content == whole.content:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the manifests are held for ever")


async def test_what_cannot_be_noted_is_not_sent_and_no_note_is_lost(tmp_path: Path) -> None:
    rate = Rate(per_second=10_000, burst=10_000)
    async with open_shop(tmp_path, V1, limits=Limits(per_address=rate)) as shop:
        token = shop.token(1)
        assert (await shop.get("head")).status_code == 200  # signed, and written, before
        spans = ",".join(f"{7 * number}-{7 * number}" for number in range(16))
        busy = sqlite3.connect(shop.store.path, isolation_level=None)
        sent = 0
        try:
            busy.execute("BEGIN IMMEDIATE")  # another process has the store for itself
            for _ in range(MAX_NOTES // 16 + 20):
                reply = await shop.get("download", token, Range=f"bytes={spans}")
                if reply.status_code != 206:
                    break
                sent += 16
            assert told(reply) == (503, "server_busy")
            assert reply.headers["retry-after"]
            assert (await shop.get("download", OWNER_TOKEN)).content == V1  # of whom nothing is noted
        finally:
            busy.close()
        for _ in range(200):
            if (await shop.get("download", token, Range="bytes=0-0")).status_code == 206:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the server is busy for ever")
        shop.service.desk.close()
        (member,) = shop.store.members(ID)
        assert (member.requests, member.sent) == (sent + 1, sent + 1)
        assert len(shop.store.downloads(ID)) == KEPT_DOWNLOADS


async def test_a_flood_of_wrong_device_codes_keeps_no_approved_worker_from_its_token(tmp_path: Path) -> None:
    async with open_shop(tmp_path, V1) as shop:  # all from one address, as behind a proxy

        async def poll(device_code: object) -> tuple[int, str | None]:
            body = {"device_code": device_code}
            return told(await shop.client.post("/auth/device/token", json=body))

        code = (await shop.client.post("/auth/device/code", json={"worker": "w"})).json()
        wrong = ("0" * 64, "", None)
        for number in range(1000):
            if await poll(wrong[number % 3]) == (429, "rate_limited"):
                break
        else:
            raise AssertionError("nobody is held back")
        assert await poll(code["device_code"]) == (200, None)
        assert await poll(code["device_code"]) == (429, "slow_down")
        approval = {"user_code": code["user_code"]}
        await shop.client.post("/auth/device/approve", json=approval, headers=auth(OWNER_TOKEN))
        for number in range(20):
            await poll(wrong[number % 3])
        body = {"device_code": code["device_code"]}
        answer = (await shop.client.post("/auth/device/token", json=body)).json()
        assert answer["status"] == "authorized"
        assert (await shop.get("download", answer["token"])).content == V1


async def test_a_running_download_ends_when_its_member_is_revoked_and_no_other(tmp_path: Path) -> None:
    data = bytes(64 << 20)
    async with open_shop(tmp_path, data) as shop:
        held = []
        for token in (shop.token(1), shop.store.mint(ID, label="leaving", max_version=1)):
            request = f"GET /dataset/{ID}/download HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", shop.service.port, limit=1 << 16)
            held.append((reader, writer))
            writer.write(f"{request}Authorization: Bearer {token}\r\n\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        shop.store.revoke(ID, "leaving")
        got = []
        for reader, writer in held:
            count = 0
            while piece := await asyncio.wait_for(reader.read(1 << 20), 20):
                count += len(piece)
            got.append(count)
            writer.close()
        assert got[0] == len(data)
        assert got[1] < len(data)
        shop.service.desk.close()
        noted = {found.label: found.stop for found in shop.store.downloads(ID)}
        assert noted["m"] == len(data)
        assert got[1] <= noted["leaving"] < len(data)
