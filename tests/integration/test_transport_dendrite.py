"""What a dendrite makes of peers that misbehave, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from transport_net import MINER, OTHER_MINER, VALIDATOR, neuron, peer, serving

from tensorage.chain.types import Endpoint
from tensorage.encoding import sha256
from tensorage.errors import TensorageError
from tensorage.transport.addresses import is_public
from tensorage.transport.axon import Access, Call, Reply
from tensorage.transport.dendrite import (
    Dendrite,
    Late,
    Malformed,
    Peer,
    PeerError,
    Refused,
    Unreachable,
)
from tensorage.transport.messages import ChallengeMessage, SectorsPage

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def impostor(conversation: Conversation) -> AsyncIterator[Peer]:
    """A server that reads one request's headers and then does as `conversation` says."""

    running: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await conversation(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Peer(MINER.ss58, Endpoint("127.0.0.1", server.sockets[0].getsockname()[1]))
    finally:
        server.close()
        for task in running:
            if task is not None:
                task.cancel()
        await asyncio.sleep(0)


def saying(*pieces: bytes, pause: float = 0.0) -> Conversation:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return conversation


def dendrite(**options: object) -> Dendrite:
    return Dendrite(VALIDATOR, **{"allow_private": True, "deadline": 0.5, **options})


async def failing(conversation: Conversation, **options: object) -> PeerError:
    async with impostor(conversation) as them, dendrite() as us:
        with pytest.raises(PeerError) as caught:
            await us.request(them, "GET", "/v1/ping", **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return caught.value


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [OK] + [b"X-Y: z\r\n"] * 500,
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 500,
        [OK + b"\r\n"] + [b"x"] * 500,
        [OK + b"Content-Length: 10000\r\n\r\n"] + [b"x"] * 500,
        [OK + b"Transfer-Encoding: chunked\r\n\r\n"] + [b"1\r\nx\r\n"] * 500,
    ],
    ids=["nothing", "headers", "informational", "body", "length", "chunks"],
)
async def test_an_answer_that_never_ends_is_late_at_the_deadline(pieces):
    started = time.monotonic()
    error = await failing(saying(*pieces, pause=0.05) if pieces != [b""] else saying(b"", pause=60))
    assert type(error) is Late
    assert 0.4 < time.monotonic() - started < 12  # the peer would go on for 25 s and more


async def test_a_flood_of_informational_answers_is_cut_off_and_holds_up_nobody():
    started = time.monotonic()
    error = await failing(saying(*[b"HTTP/1.1 100 Continue\r\n\r\n" * 1000] * 50, pause=0), deadline=60)
    assert type(error) is Malformed
    assert "no answer in the first" in error.message
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 1000000000000\r\n\r\nxxxx",
        OK + b"\r\n" + b"x" * 200_000,
        OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(10_000_000), 9)[:9_000],
        OK + b"X: " + b"y" * 500_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["declared", "sent", "bomb", "header", "redirect", "empty", "ssh", "lengths", "chunk"],
)
async def test_an_answer_that_is_not_what_was_asked_for_is_malformed(answer):
    assert type(await failing(saying(answer))) is Malformed


@pytest.mark.parametrize("answer", [b"", OK, OK + b"Content-Length: 10\r\n\r\nhello"])
async def test_a_connection_that_breaks_is_unreachable(answer):
    assert type(await failing(saying(answer))) is Unreachable


async def test_a_closed_port_is_unreachable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Peer(MINER.ss58, Endpoint("127.0.0.1", unused.getsockname()[1]))
        async with dendrite() as us:
            with pytest.raises(Unreachable):
                await us.ping(nobody)


async def test_a_refusal_keeps_kind_and_one_clean_short_line():
    body = b'{"error": "unready", "message": "line\\nfeed \\u001b[31m' + b"x" * 3000 + b'", "more": 1}'
    error = await failing(saying(b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
    assert isinstance(error, Refused)
    assert (error.status, error.kind) == (503, "unready")
    assert "\x1b" not in error.message
    error = await failing(saying(b"HTTP/1.1 500 No\r\n\r\n" + b"<html>\x00\xff" * 100_000))
    assert isinstance(error, Refused)
    assert (error.status, error.kind) == (500, "")


@pytest.mark.parametrize(
    ("ip", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:7f00:1::", False),
        ("localhost", False),
    ],
)
async def test_only_routable_addresses_are_dialled(ip, public):
    assert is_public(ip) is public


async def test_a_private_address_is_refused_without_a_connection():
    async with impostor(saying(OK + b"\r\n{}")) as them, Dendrite(VALIDATOR) as us:
        with pytest.raises(Unreachable, match="not globally routable"):
            await us.ping(them)
        with pytest.raises(Unreachable, match="published no axon"):
            await us.ping(neuron(0, MINER))


async def test_environment_proxies_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving(tmp_path) as axon, dendrite(deadline=5) as us:
        assert (await us.ping(peer(axon))).hotkey == MINER.ss58


async def test_slow_peers_do_not_keep_others_waiting(tmp_path):
    async with (
        serving(tmp_path) as axon,
        impostor(saying(b"", pause=60)) as them,
        dendrite(max_connections=8, deadline=1.5) as us,
    ):
        slow = [asyncio.create_task(us.ping(them)) for _ in range(6)]
        started = time.monotonic()
        await us.ping(peer(axon))
        assert not any(task.done() for task in slow)
        # Two at a time, each with its full deadline: waiting for a turn is not the peer's lateness.
        results = await asyncio.gather(*slow, return_exceptions=True)
        assert [type(result) for result in results] == [Late] * 6
        assert time.monotonic() - started > 3.9


async def test_elapsed_runs_from_sending_to_the_last_byte():
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 2\r\n\r\na")
        await asyncio.sleep(0.3)
        writer.write(b"b")
        await writer.drain()

    async with impostor(conversation) as them, dendrite(deadline=5) as us:
        response = await us.request(them, "GET", "/x")
    assert 0.29 < response.elapsed < 3


async def test_all_pages_of_a_listing_are_assembled(tmp_path):
    entries = [(3 * number, sha256(b"%d" % number)) for number in range(9000)]

    async def sectors(call: Call) -> Reply:
        start, limit = call.number("from", 0), call.number("limit", 100, low=1, high=4096)
        page = entries[start : start + limit]
        return SectorsPage(indices=[index for index, _ in page], roots=[root for _, root in page])

    async with serving(tmp_path) as axon, dendrite(deadline=10) as us:
        axon.route("GET", "/v1/sectors", sectors, access=Access.VALIDATOR)
        assert await us.sectors(peer(axon), 9000) == entries
        assert await us.sectors(peer(axon), 0) == []
        with pytest.raises(Malformed, match="got 0"):
            await us.sectors(peer(axon), 9001)


async def test_a_listing_that_repeats_itself_is_malformed(tmp_path):
    async def same_page(call: Call) -> Reply:
        limit = call.number("limit")
        return SectorsPage(indices=list(range(limit)), roots=[bytes(32)] * limit)

    async with serving(tmp_path) as axon, dendrite(deadline=10) as us:
        axon.route("GET", "/v1/sectors", same_page, access=Access.VALIDATOR)
        with pytest.raises(Malformed, match="stands after"):
            await us.sectors(peer(axon), 5000)


async def test_a_challenge_and_chunk_roots_travel_as_raw_bytes(tmp_path):
    asked = ChallengeMessage(
        commitment=bytes(32), block_number=2**64 - 1, block_hash=b"\xff" * 32, round=7, hops=32
    )

    async def challenge(call: Call) -> Reply:
        assert call.json(ChallengeMessage) == asked
        return bytes(range(256)) * 600

    async def chunk_roots(call: Call) -> Reply:
        return bytes([call.number("index")]) * 64

    async with serving(tmp_path) as axon, dendrite(deadline=10) as us:
        axon.route("POST", "/v1/challenge", challenge, access=Access.VALIDATOR)
        axon.route("GET", "/v1/sectors/{index}/chunk-roots", chunk_roots, access=Access.VALIDATOR)
        answer, elapsed = await us.challenge(peer(axon), asked, max_bytes=160_000, deadline=4)
        assert answer == bytes(range(256)) * 600
        assert 0 < elapsed < 4
        with pytest.raises(Malformed, match="153600"):
            await us.challenge(peer(axon), asked, max_bytes=153_599, deadline=4)
        assert await us.chunk_roots(peer(axon), 9, 2) == [b"\x09" * 32] * 2
        with pytest.raises(Malformed):
            await us.chunk_roots(peer(axon), 9, 3)


async def test_who_answers_at_an_endpoint_under_another_hotkey_refuses(tmp_path):
    async with serving(tmp_path) as axon, dendrite(deadline=5) as us:
        with pytest.raises(Refused, match="different receiving hotkey"):
            await us.ping(peer(axon, OTHER_MINER))


def test_peer_errors_stand_in_the_one_tree():
    assert all(issubclass(error, TensorageError) for error in (Late, Malformed, Refused, Unreachable))


async def test_a_large_answer_is_held_twice_at_most():
    size, piece = 32 << 20, bytes(512 << 10)
    answer = [OK + b"Content-Length: %d\r\n\r\n" % size, *[piece] * (size // len(piece))]
    async with impostor(saying(*answer)) as them, dendrite(deadline=60) as us:
        tracemalloc.start()
        try:
            response = await us.request(them, "GET", "/x", max_bytes=size)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(response.body) == size
    assert peak < 2.2 * size
