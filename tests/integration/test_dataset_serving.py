"""How bytes are sent, and what hostile clients can take from the server: nothing but their own time."""

import asyncio
import contextlib
import email
import hashlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio
from dataset_market import DORA, ID, OWNER_TOKEN, Clock, Shop, auth, open_shop, told

from tensorage.dataset import identity, wire
from tensorage.dataset.payments.errors import PaymentRefused
from tensorage.dataset.payments.models import Payment, encode_header
from tensorage.dataset.payments.till import Presented, Settled, Terms
from tensorage.dataset.sales import OfferTerms
from tensorage.dataset.server.handlers import MAX_DOWNLOADS_EACH
from tensorage.dataset.server.selling import Sale
from tensorage.dataset.server.service import LIMITS
from tensorage.dataset.store import Store
from tensorage.transport.limits import Limits, Rate

V1 = random.Random(1).randbytes(3_000_001)
ETAG = f'"{hashlib.sha256(V1).hexdigest()}"'
OTHER = f'"{hashlib.sha256(b"").hexdigest()}"'
#: Short times, so that a test need not wait long for the end of them.
HASTY = Limits(header_seconds=0.5, idle_seconds=0.5, total_seconds=2, close_seconds=0.3, max_connections=24)


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, V1) as opened:
        yield opened


async def fetch(shop: Shop, **headers: str) -> httpx.Response:
    reply = await shop.get("download", OWNER_TOKEN, **headers)
    if reply.status_code in (200, 206, 304):
        assert reply.headers["etag"] == ETAG
        assert reply.headers["x-dataset-file-hash"] == hashlib.sha256(V1).hexdigest()
    return reply


async def test_single_suffix_and_open_ranges_are_sent_with_their_place(shop: Shop) -> None:
    size = len(V1)
    for asked, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=1048575-1048576", 1048575, 1048576),
        ("bytes=-5", size - 5, size - 1),
        ("bytes=2000000-", 2000000, size - 1),
        (f"bytes=7-{size * 9}", 7, size - 1),
        (f"bytes={size}-,3-4", 3, 4),
    ):
        reply = await fetch(shop, Range=asked)
        assert (reply.status_code, reply.content) == (206, V1[first : last + 1])
        assert reply.headers["content-range"] == f"bytes {first}-{last}/{size}"
    for asked in (f"bytes={size}-", "bytes=-0", "bytes=9-8", "bytes=x", "bytes=0-9,5-"):
        reply = await fetch(shop, Range=asked)
        assert told(reply) == (416, "range_not_satisfiable")
        assert reply.headers["content-range"] == f"bytes */{size}"
    whole = await fetch(shop, Range="chunks=1-2")
    assert (whole.status_code, whole.content) == (200, V1)


async def test_several_ranges_come_as_parts_of_one_body(shop: Shop) -> None:
    size = len(V1)
    spans = [(5, 9), (2_000_000, size - 1), (100, 1_500_000)]
    asked = "bytes=" + ",".join(f"{first}-{last}" for first, last in spans)
    reply = await fetch(shop, Range=asked)
    assert (reply.status_code, reply.headers.get("content-range")) == (206, None)
    kind = reply.headers["content-type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + reply.content)
    parts = list(message.walk())[1:]
    assert [part["content-range"] for part in parts] == [f"bytes {a}-{b}/{size}" for a, b in spans]
    boundary = kind.partition("=")[2].encode()
    raw = reply.content.split(b"--" + boundary)[1:-1]
    assert [piece.partition(b"\r\n\r\n")[2][:-2] for piece in raw] == [V1[a : b + 1] for a, b in spans]
    assert reply.content.endswith(b"--" + boundary + b"--\r\n")


async def test_conditions_decide_between_whole_part_and_nothing(shop: Shop) -> None:
    part = {"Range": "bytes=3-4"}
    assert (await fetch(shop, If_Range=ETAG, **part)).content == V1[3:5]
    modified = (await fetch(shop)).headers["last-modified"]
    for stale in (OTHER, f"W/{ETAG}", modified):
        reply = await fetch(shop, If_Range=stale, **part)
        assert (reply.status_code, reply.content) == (200, V1)
    reply = await fetch(shop, If_Range=OTHER, Range=f"bytes={len(V1)}-")  # a resumer whose file has changed
    assert (reply.status_code, len(reply.content)) == (200, len(V1))
    known = await fetch(shop, If_None_Match=f"{OTHER}, W/{ETAG}", **part)
    assert (known.status_code, known.content) == (304, b"")
    assert told(await fetch(shop, If_Match=OTHER)) == (412, "precondition_failed")
    # No condition opens what no token opens.
    for headers in ({"If-None-Match": ETAG}, {"If-None-Match": "*"}, {"Range": "bytes=0-0"}):
        assert told(await shop.get("download", None, **headers)) == (401, "auth_required")


async def test_an_empty_file_and_one_of_a_single_piece_are_sent(tmp_path: Path) -> None:
    async with open_shop(tmp_path, b"", b"x" * (1 << 20)) as shop:
        empty = await shop.get("download?version=1", OWNER_TOKEN, Range="bytes=0-")
        assert (empty.status_code, empty.content, empty.headers["content-length"]) == (200, b"", "0")
        assert (await shop.get("chunks?version=1", OWNER_TOKEN)).content == b""
        assert len((await shop.get("download", OWNER_TOKEN)).content) == 1 << 20


async def test_no_path_leads_out_of_the_dataset(shop: Shop) -> None:
    """Ids as they come over the wire, unnormalised."""
    ids = [
        "..",
        "../sft-demo",
        "%2e%2e",
        "%2e%2e%2fsft-demo",
        "..%2f..%2f..%2fetc%2fpasswd",
        "sft-demo%00",
        "sft-demo%2f..",
        "SFT-DEMO",
        "./sft-demo",
        "%ff",
        "sft-demo;",
        "sft-demo%20",
        "",
    ]
    for id in ids:
        for route in ("download", "chunks", "versions", "status", "verify"):
            lines = [f"GET /dataset/{id}/{route} HTTP/1.1", "Host: x", f"Authorization: Bearer {OWNER_TOKEN}"]
            status, body = await raw(shop, "\r\n".join([*lines, "Connection: close", "", ""]).encode())
            assert status == 404, (id, route, status)
            assert b'"unknown_dataset"' in body or b'"not_found"' in body


async def raw(shop: Shop, sent: bytes) -> tuple[int, bytes]:
    """What the server answers to these very bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.service.port)
    try:
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_slow_and_silent_clients_are_ended_and_cost_nobody_else(tmp_path: Path) -> None:
    async with open_shop(tmp_path, V1, limits=HASTY) as shop:
        sent = [
            b"",
            b"GET /healthz HTT",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ",
            b"POST /auth/device/code HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
            b"POST /auth/device/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ]
        ended = await asyncio.gather(*(raw(shop, start) for start in sent * 3))
        assert {status for status, _ in ended} == {408}
        assert (await shop.client.get("/healthz")).status_code == 200

        # Who takes no answer holds no more than the connection.
        token = shop.token(1)
        idle = []
        for _ in range(4):
            _, writer = await asyncio.open_connection("127.0.0.1", shop.service.port, limit=1)
            writer.write(f"GET /dataset/{ID}/download HTTP/1.1\r\nHost: x\r\n".encode())
            writer.write(f"Authorization: Bearer {token}\r\n\r\n".encode())
            idle.append(writer)
        assert (await shop.get("download", OWNER_TOKEN)).content == V1
        for writer in idle:
            writer.close()


async def test_crowds_of_connections_are_turned_away(tmp_path: Path) -> None:
    async with open_shop(tmp_path, V1, limits=HASTY) as shop:
        crowd = []
        try:
            for _ in range(HASTY.max_connections):
                crowd.append(await asyncio.open_connection("127.0.0.1", shop.service.port))
            status, body = await raw(shop, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (status, b"too many connections" in body) == (503, True)
        finally:
            for _, writer in crowd:
                writer.close()
        for _ in range(100):
            with contextlib.suppress(httpx.HTTPError):
                if (await shop.client.get("/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
        raise AssertionError("the server did not come back")


async def test_bodies_headers_and_garbage_are_bounded(tmp_path: Path) -> None:
    async with open_shop(tmp_path, V1, limits=HASTY) as shop:
        await bounded(shop)


async def bounded(shop: Shop) -> None:
    big = b"x" * 70_000
    for path, token in (("code", None), ("token", None), ("approve", OWNER_TOKEN)):
        reply = await shop.client.post(f"/auth/device/{path}", content=big, headers=auth(token))
        assert told(reply) == (413, "too_large")
    assert told(await shop.client.post("/auth/device/approve", content=big)) == (401, "owner_required")
    endless = b"POST /auth/device/code HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await raw(shop, endless + b"fffff\r\n" + b"x" * 200_000))[0] == 413
    status, body = await raw(
        shop, b"GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"
    )
    assert (status, b'"too_large"' in body) == (431, True)
    status, body = await raw(shop, b"\x16\x03\x01 not http\r\n\r\n")
    assert (status, b'"malformed"' in body) == (400, True)


async def test_floods_of_codes_and_polls_are_bounded(shop: Shop) -> None:
    outcomes = [told(await shop.client.post("/auth/device/code"))[0] for _ in range(40)]
    assert outcomes.count(200) <= 12
    assert set(outcomes) == {200, 429}
    assert (await shop.client.post("/auth/device/code")).headers["retry-after"]
    body = {"device_code": "0" * 64}
    polls = [told(await shop.client.post("/auth/device/token", json=body))[0] for _ in range(100)]
    assert set(polls) == {404, 429}
    assert (await shop.get("download", shop.token(1))).content == V1  # members are another matter


async def test_a_flood_of_ranges_is_bounded_and_frees_what_it_took(tmp_path: Path) -> None:
    limits = Limits(**{**_fields(LIMITS), "per_address": Rate(per_second=5, burst=100)})
    async with open_shop(tmp_path, V1, limits=limits) as shop:
        token = shop.token(1)
        many = ",".join(f"{start}-{start}" for start in range(0, 2000, 2))
        assert told(await shop.get("download", token, Range=f"bytes={many}")) == (
            416,
            "range_not_satisfiable",
        )
        assert told(await shop.get("download", token, Range="bytes=0-," * 16)) == (
            416,
            "range_not_satisfiable",
        )
        before = len(descriptors())
        outcomes = await asyncio.gather(
            *(shop.get("download", token, Range=f"bytes={n}-{n + 9}") for n in range(150)),
            return_exceptions=True,
        )
        statuses = [reply.status_code for reply in outcomes if isinstance(reply, httpx.Response)]
        assert set(statuses) <= {206, 429}
        assert statuses.count(429) >= 10
        for _ in range(100):
            if len(descriptors()) <= before + limits.max_connections:
                break
            await asyncio.sleep(0.05)
        assert not [name for name in descriptors() if "/artifacts/" in name]


def _fields(limits: Limits) -> dict[str, object]:
    return {name: getattr(limits, name) for name in Limits.__slots__}


def descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return found


async def test_one_token_has_so_many_downloads_at_once_and_frees_them(tmp_path: Path) -> None:
    async with open_shop(tmp_path, bytes(32 << 20)) as shop:
        token, other = shop.token(1), shop.token(1)
        request = f"GET /dataset/{ID}/download HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        held = []
        for _ in range(MAX_DOWNLOADS_EACH):
            sock = socket.create_connection(("127.0.0.1", shop.service.port))
            held.append(sock)
            sock.sendall(request.encode())
            assert (await asyncio.to_thread(sock.recv, 12)) == b"HTTP/1.1 200"
        assert told(await shop.get("download", token)) == (429, "too_many_downloads")
        assert told(await shop.get("download", other)) == (429, "too_many_downloads")  # of one address
        for sock in held:
            sock.close()
        for _ in range(100):
            if (await shop.get("download", token, Range="bytes=0-0")).status_code == 206:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the downloads are held for ever")
        shop.service.desk.close()
        assert not [name for name in descriptors() if "/artifacts/" in name]


class CashTill:
    """A network on which money is the word of the payer: {"coins": amount, "of": payer}."""

    network, asset, max_timeout = "bittensor:" + "0" * 32, "TAO", 60

    def extra(self) -> dict[str, str]:
        return {"assetTransferMethod": "cash"}

    def identify(self, payment: Payment, terms: Terms) -> Presented:
        return Presented(str(payment.payload["of"]).encode(), b"", b"", None, payment.payload["coins"])

    async def check(self, shown: Presented, terms: Terms, now: int, *, begun: bool) -> Settled:
        if shown.detail < terms.offer.amount:
            raise PaymentRefused("too_little", f"{shown.detail} is less than {terms.offer.amount}")
        return Settled(shown.payment_id, "payer", self.network, shown.detail, "tx")

    async def settle(self, shown: Presented, terms: Terms) -> Settled:
        raise AssertionError("cash is settled when it is shown")


async def test_access_is_sold_and_only_for_what_was_paid(tmp_path: Path) -> None:
    clock = Clock()
    store = Store(tmp_path / "home", clock=clock)
    terms = OfferTerms(CashTill.network, CashTill.asset, "2", "mb", "5Payee")
    sale = Sale(store, CashTill(), terms, DORA, url=lambda: "https://seller.example", clock=clock)
    async with open_shop(tmp_path, V1, b"2" * 100, store=store, sale=sale) as shop:
        path = f"/dataset/{ID}/join/paid"
        assert told(await shop.client.post("/dataset/other/join/paid")) == (404, "unknown_dataset")
        for bad in ("0", "3", "x", ""):
            assert told(await shop.client.post(f"{path}?version={bad}")) == (400, "unknown_version")
        asked = await shop.client.post(f"{path}?version=1")
        assert asked.status_code == 402
        assert asked.headers["payment-required"]
        (wanted,) = asked.json()["accepts"]
        offer = wire.read_offer(wanted["extra"]["offer"])
        assert identity.verify(DORA.owner, offer.offer.hash, offer.signature)
        assert int(wanted["amount"]) == -(-2 * 10**9 * len(V1) // 2**20)
        assert asked.json()["resource"]["url"] == f"https://seller.example{path}?version=1"

        async def pay(coins: int, of: str, header: str, version: int = 1) -> httpx.Response:
            payment = {"x402Version": 2, "accepted": wanted, "payload": {"coins": coins, "of": of}}
            headers = {header: encode_header(payment)}
            return await shop.client.post(f"{path}?version={version}", headers=headers)

        short = await pay(int(wanted["amount"]) - 1, "ann", "X-PAYMENT")
        assert (short.status_code, short.json()["error"]) == (402, "too_little")
        paid = await pay(int(wanted["amount"]), "ann", "X-PAYMENT")
        assert (paid.status_code, paid.json()["version"]) == (200, 1)
        assert paid.headers["x-payment-response"] == paid.headers["payment-response"]
        again = await pay(int(wanted["amount"]), "ann", "PAYMENT-SIGNATURE")
        assert again.json() == paid.json()
        other = await pay(int(wanted["amount"]), "ann", "X-PAYMENT", version=2)
        assert other.status_code == 402
        token = paid.json()["token"]
        assert (await shop.get("download?version=1", token)).content == V1
        assert told(await shop.get("download?version=2", token)) == (403, "version_not_entitled")
        clock.now += 50_000  # past half the life of the offer: another is signed
        later = wire.read_offer((await shop.client.post(path)).json()["accepts"][0]["extra"]["offer"])
        assert later.offer.expires == clock.now + 86_400
