"""Bodies that a handler takes piece by piece, and peers that send them badly, over raw sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time

import pytest
from chain_net import eventually
from test_transport_dendrite import impostor
from transport_net import peer, say, serving

from tensorage.errors import RequestError
from tensorage.transport.axon import Axon, Reply, StreamCall
from tensorage.transport.dendrite import Dendrite, Refused, Unreachable
from tensorage.transport.limits import Limits
from tensorage.transport.uploads import Uploads

MIB = 1 << 20
QUICK = Limits(header_seconds=0.4, idle_seconds=0.4, total_seconds=1.0, close_seconds=0.4, max_uploads=2)


async def take(call: StreamCall) -> Reply:
    """Judges the header first, then takes what comes."""
    if call.headers.get("x-pass") != "yes":
        raise RequestError("forbidden", "this is for those with a pass")
    size, pieces = 0, 0
    async for chunk in call.chunks(4 * MIB):
        size += len(chunk)
        pieces += 1
        assert 0 < len(chunk) <= 512 * 1024
    return f"{call.path['name']} {size} {pieces > 0}".encode()


def attach(axon: Axon, *, total_seconds: float = 20.0) -> None:
    axon.stream("PUT", "/v1/shards/{name}", take, total_seconds=total_seconds)


def head(*lines: str, passing: bool = True) -> bytes:
    more = ["X-Pass: yes"] if passing else []
    return "\r\n".join(["PUT /v1/shards/a HTTP/1.1", "Host: x", *more, *lines, "", ""]).encode()


def status(raw: bytes) -> tuple[int, str]:
    """Status and kind of a raw refusal."""
    start, _, body = raw.partition(b"\r\n\r\n")
    return int(start.split()[1]), json.loads(body)["error"]


def taking(axon: Axon) -> int:
    uploads: Uploads = axon._uploads
    return uploads._by_address.total()


async def put(axon: Axon, body: bytes, **headers: str) -> bytes:
    async with Dendrite(None, allow_private=True) as dendrite:
        response = await dendrite.request(
            peer(axon), "PUT", "/v1/shards/a", body=body, headers={"x-pass": "yes", **headers}, deadline=20
        )
    return response.body


async def test_a_body_is_taken_whole_declared_or_in_chunks(tmp_path):
    async with serving(tmp_path) as axon:
        attach(axon)
        for size in (1, 65536, 300_000, 4 * MIB):
            assert await put(axon, os.urandom(size)) == b"a %d True" % size
        assert await put(axon, b"") == b"a 0 False"
        pieces = [b"%x\r\n" % 50_000 + bytes(50_000) + b"\r\n"] * 10
        raw = await say(
            axon, head("Transfer-Encoding: chunked", "Connection: close"), *pieces, b"0\r\n\r\n", pause=0.001
        )
        assert raw.endswith(b"a 500000 True")
        assert taking(axon) == 0


async def test_a_piece_is_there_while_it_is_written_although_many_uploads_come_at_once(tmp_path):
    gate = threading.Event()

    def digest(state, piece: memoryview) -> None:
        gate.wait(20)
        state.update(piece)

    async def slow(call: StreamCall) -> Reply:
        """Writes each piece while the next comes in, the last one after the body has ended."""
        state, last = hashlib.sha256(), None
        async for piece in call.chunks(4 * MIB):
            if last is not None:
                gate.set()
                await last
            last = asyncio.ensure_future(asyncio.to_thread(digest, state, piece))
        await asyncio.sleep(0.05)  # others have begun to come
        gate.set()
        await last
        return state.hexdigest().encode()

    bodies = [os.urandom(size) for size in (MIB, 300_000, 4 * MIB, MIB + 1) for _ in range(4)]
    async with serving(tmp_path) as axon, Dendrite(None, allow_private=True, per_peer=8) as dendrite:
        axon.stream("PUT", "/v1/shards/{name}", slow, total_seconds=30)
        for _ in range(3):
            gate.clear()
            answers = await asyncio.gather(
                *(dendrite.request(peer(axon), "PUT", "/v1/shards/a", body=body) for body in bodies)
            )
            assert [answer.body.decode() for answer in answers] == [
                hashlib.sha256(body).hexdigest() for body in bodies
            ]


async def test_a_client_that_goes_between_two_pieces_is_noticed_at_the_next(tmp_path):
    gone, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def slow(call: StreamCall) -> Reply:
        try:
            async for _ in call.chunks(4 * MIB):
                await gone.wait()
        except RequestError as error:
            ended.set_result(error.message)
            raise
        return b""

    async with serving(tmp_path, limits=Limits(idle_seconds=3600.0)) as axon:
        axon.stream("PUT", "/v1/shards/{name}", slow, total_seconds=3600)
        _, writer = await asyncio.open_connection("127.0.0.1", axon.port)
        writer.write(head(f"Content-Length: {4 * MIB}") + bytes(MIB))
        await writer.drain()
        writer.transport.abort()
        gone.set()
        assert "before the body was whole" in await asyncio.wait_for(ended, 20)
        await eventually(lambda: not taking(axon))


async def test_one_connection_serves_upload_after_upload(tmp_path):
    async with serving(tmp_path) as axon, Dendrite(None, allow_private=True, per_peer=1) as dendrite:
        attach(axon)
        for _ in range(5):
            response = await dendrite.request(
                peer(axon), "PUT", "/v1/shards/a", body=bytes(2 * MIB), headers={"x-pass": "yes"}
            )
            assert response.body == b"a 2097152 True"
            assert len(axon._connections.open) == 1


async def test_who_is_refused_by_its_headers_is_cut_off_without_being_read(tmp_path):
    async with serving(tmp_path, limits=QUICK) as axon:
        attach(axon)
        started = time.monotonic()
        endless = [bytes(256 * 1024)] * 100_000
        raw = await say(axon, head("Content-Length: 999999999999", passing=False), *endless)
        assert status(raw) == (403, "forbidden")
        assert time.monotonic() - started < 10
        await eventually(lambda: not axon._connections.open)
        assert taking(axon) == 0
        assert await put(axon, b"x" * 100) == b"a 100 True"


async def test_a_client_that_is_refused_early_stops_sending_and_reads_why(tmp_path):
    async with serving(tmp_path) as axon, Dendrite(None, allow_private=True) as dendrite:
        attach(axon)
        for _ in range(5):
            with pytest.raises(Refused, match="a pass"):
                await dendrite.request(peer(axon), "PUT", "/v1/shards/a", body=bytes(32 * MIB), deadline=20)


async def test_a_dendrite_hears_an_early_answer_of_a_peer_that_reads_on(tmp_path):
    heard = bytearray()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 507 No\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        while piece := await reader.read(MIB):
            heard.extend(piece)

    async with impostor(refuse) as them, Dendrite(None, allow_private=True) as dendrite:
        with pytest.raises(Refused) as caught:
            await dendrite.request(them, "PUT", "/v1/shards/a", body=bytes(64 * MIB), deadline=20)
    assert caught.value.status == 507
    assert len(heard) < 32 * MIB


async def test_an_endless_upload_is_cut_off_at_its_limit(tmp_path):
    async with serving(tmp_path, limits=QUICK) as axon:
        attach(axon)
        chunk = b"%x\r\n" % (256 * 1024) + bytes(256 * 1024) + b"\r\n"
        raw = await say(axon, head("Transfer-Encoding: chunked"), *[chunk] * 100_000)
        assert status(raw) == (413, "too_large")
        await eventually(lambda: not axon._connections.open)
        assert taking(axon) == 0
        with pytest.raises(Refused, match="4194305 bytes, at most 4194304"):
            await put(axon, bytes(4 * MIB + 1))


async def test_an_upload_that_stops_or_drips_is_given_up(tmp_path):
    async with serving(tmp_path, limits=QUICK) as axon:
        attach(axon, total_seconds=1.2)
        raw = await say(axon, head("Content-Length: 1000"), b"x")
        assert status(raw) == (408, "timeout")
        started = time.monotonic()
        raw = await say(axon, head("Content-Length: 1000"), *[b"x"] * 200, pause=0.1)
        assert status(raw) == (503, "unready")
        assert 1.0 < time.monotonic() - started < 10
        await eventually(lambda: not axon._connections.open)
        assert taking(axon) == 0


async def test_an_upload_that_breaks_off_is_refused_inside_and_counts_no_longer(tmp_path):
    errors: list[RequestError] = []

    async def watch(call: StreamCall) -> Reply:
        try:
            return await take(call)
        except RequestError as error:
            errors.append(error)
            raise

    async with serving(tmp_path) as axon:
        axon.stream("PUT", "/v1/shards/{name}", watch, total_seconds=20)
        _, writer = await asyncio.open_connection("127.0.0.1", axon.port)
        writer.write(head("Content-Length: 1000") + b"xyz")
        await eventually(lambda: taking(axon) == 1)
        writer.transport.abort()
        await eventually(lambda: taking(axon) == 0)
    assert [error.kind for error in errors] == ["malformed"]


async def test_uploads_are_capped_in_all_and_for_each_address(tmp_path):
    for limits, expected in (
        (Limits(max_uploads=2), (503, "unready")),
        (Limits(uploads_per_address=2), (429, "rate_limited")),
    ):
        async with serving(tmp_path, limits=limits) as axon:
            attach(axon)
            held = [await asyncio.open_connection("127.0.0.1", axon.port) for _ in range(2)]
            for _, writer in held:
                writer.write(head("Content-Length: 1000") + b"x")
            await eventually(lambda axon=axon: taking(axon) == 2)
            assert status(await say(axon, head("Content-Length: 1000"))) == expected
            # Who has no pass takes up no place.
            assert status(await say(axon, head("Content-Length: 1000", passing=False)))[0] == 403
            for _, writer in held:
                writer.write(b"x" * 999)
            await eventually(lambda axon=axon: taking(axon) == 0)
            assert await put(axon, b"x") == b"a 1 True"
            for _, writer in held:
                writer.close()


async def test_a_body_that_nobody_takes_stays_with_its_sender(tmp_path):
    go = asyncio.Event()

    async def wait(call: StreamCall) -> Reply:
        await go.wait()
        return await take(call)

    async with serving(tmp_path) as axon:
        axon.stream("PUT", "/v1/shards/{name}", wait, total_seconds=20)
        senders = [asyncio.create_task(put(axon, bytes(4 * MIB))) for _ in range(8)]
        await eventually(lambda: len(axon._connections.open) == 8)
        await asyncio.sleep(0.5)
        held = [len(connection.cycle.body) for connection in axon._connections.open]
        assert len(held) == 8
        assert max(held) <= 512 * 1024
        go.set()
        assert await asyncio.gather(*senders) == [b"a 4194304 True"] * 8


async def test_a_peer_that_breaks_off_while_it_is_sent_to_is_unreachable():
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with impostor(leave) as them, Dendrite(None, allow_private=True) as dendrite:
        with pytest.raises(Unreachable):
            await dendrite.request(them, "PUT", "/v1/shards/a", body=bytes(32 * MIB), deadline=20)


async def test_a_large_answer_reaches_a_slow_reader_whole_and_is_not_copied_for_it(tmp_path):
    body = os.urandom(8 * MIB)

    async def large(call: StreamCall) -> Reply:
        return body

    async with serving(tmp_path) as axon:
        axon.stream("GET", "/v1/large", large, total_seconds=30)
        reader, writer = await asyncio.open_connection("127.0.0.1", axon.port, limit=64 * 1024)
        writer.write(b"GET /v1/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await eventually(lambda: len(axon._connections.open) == 1)
        await asyncio.sleep(0.3)
        (connection,) = axon._connections.open
        assert connection.transport.get_write_buffer_size() < MIB
        raw = await reader.read(-1)
        assert raw.partition(b"\r\n\r\n")[2] == body
        writer.close()
