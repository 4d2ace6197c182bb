"""What an axon does with peers that misbehave below or around HTTP, over raw sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import time

import pytest
from chain_net import eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transport_net import METAGRAPH, MINER, VALIDATOR, ask, echo, peer, say, serving, signed

from tensorage.transport.axon import Access, Axon, Call, Reply
from tensorage.transport.dendrite import Dendrite, Refused
from tensorage.transport.limits import Limits
from tensorage.transport.nonces import SqliteNonceStore

QUICK = Limits(
    header_seconds=0.4,
    idle_seconds=0.4,
    total_seconds=1.0,
    keep_alive_seconds=1,
    close_seconds=0.4,
    max_body=10_000,
)


def parsed(raw: bytes) -> tuple[int, dict[str, str]]:
    """Status and JSON body of one raw answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def head(method: str, target: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")


async def serves(axon: Axon) -> bool:
    headers = signed(VALIDATOR, "POST", "/v1/echo", b"alive")
    return (await ask(axon, "POST", "/v1/echo", b"alive", headers)).status_code == 200


async def test_a_body_declared_too_large_is_refused_before_it_is_sent(tmp_path):
    async with serving(tmp_path, limits=QUICK) as axon:
        raw = await say(axon, head("POST", "/v1/echo", "Content-Length: 99999999999999999999"))
        status, body = parsed(raw)
        assert (status, body["error"]) == (413, "too_large")
        assert await serves(axon)


async def test_a_body_that_grows_too_large_is_cut_off(tmp_path):
    async with serving(tmp_path, limits=QUICK) as axon:
        chunk = b"%x\r\n" % 4000 + b"x" * 4000 + b"\r\n"
        raw = await say(axon, head("POST", "/v1/echo", "Transfer-Encoding: chunked"), *[chunk] * 3)
        assert parsed(raw)[0] == 413
        assert await serves(axon)


async def test_who_sends_far_too_much_still_reads_why_it_is_refused(tmp_path):
    async with serving(tmp_path) as axon, Dendrite(VALIDATOR, allow_private=True) as dendrite:
        for _ in range(3):
            with pytest.raises(Refused, match="at most 65536"):
                await dendrite.request(peer(axon), "POST", "/v1/echo", body=bytes(5_000_000))


async def test_a_get_takes_no_body(tmp_path):
    async with serving(tmp_path) as axon:
        headers = signed(VALIDATOR, "GET", "/v1/ping", b"x")
        assert (await ask(axon, "GET", "/v1/ping", b"x", headers)).status_code == 413


@pytest.mark.parametrize("pieces", [1, 8])
async def test_headers_too_large_are_refused(tmp_path, pieces):
    async with serving(tmp_path, limits=QUICK) as axon:
        lines = [f"X-{number}: {'y' * 4000}" for number in range(8)]
        whole = head("GET", "/healthz", *lines)
        size = len(whole) // pieces + 1
        raw = await say(axon, *(whole[start : start + size] for start in range(0, len(whole), size)))
        status, body = parsed(raw)
        assert (status, body["error"]) == (431, "too_large")
        assert await serves(axon)


async def test_a_connection_that_sends_nothing_is_closed(tmp_path):
    async with serving(tmp_path, limits=QUICK) as axon:
        started = time.monotonic()
        assert parsed(await say(axon))[0] == 408
        assert time.monotonic() - started < 4  # without the limit it would be 5 s


async def test_headers_that_come_a_byte_at_a_time_are_cut_off_also_after_a_first_request(tmp_path):
    async with serving(tmp_path, limits=QUICK) as axon:
        drip = [bytes([byte]) for byte in head("GET", "/healthz")]
        raw = await say(axon, *drip, pause=0.1)
        assert not raw or parsed(raw)[0] == 408
        raw = await say(axon, head("GET", "/healthz"), *drip, pause=0.1)
        assert raw.startswith(b"HTTP/1.1 200")
        assert raw.count(b"HTTP/1.1 200") == 1
        assert await serves(axon)


async def test_a_body_that_stops_or_drips_is_given_up(tmp_path):
    async with serving(tmp_path, limits=QUICK) as axon:
        declared = head("POST", "/v1/echo", "Content-Length: 1000")
        assert parsed(await say(axon, declared, b"x"))[0] == 408
        started = time.monotonic()
        raw = await say(axon, declared, *[b"x"] * 20, pause=0.1)
        assert not raw or parsed(raw)[0] == 503
        assert time.monotonic() - started < 15


async def test_a_body_in_crumbs_costs_no_more_than_its_first_thousand(tmp_path):
    async with serving(tmp_path) as axon:
        whole = head("POST", "/v1/echo", "Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 65_000 + b"0\r\n\r\n"
        before = time.process_time()
        raw = await say(axon, whole)
        assert parsed(raw) == (
            400,
            {"error": "malformed", "message": "the body comes in too many pieces for its size"},
        )
        assert time.process_time() - before < 0.3  # all of it took half a second and more
        # A body in packets as small as there are, and one with a few small chunks, are no crumbs.
        drops = b"".join(b"200\r\n" + b"x" * 512 + b"\r\n" for _ in range(100))
        raw = await say(
            axon,
            head("POST", "/v1/echo", "Transfer-Encoding: chunked"),
            drops,
            b"1\r\nx\r\n" * 500,
            b"0\r\n\r\n",
        )
        assert parsed(raw)[0] == 401
        assert await serves(axon)


async def test_a_peer_that_does_not_read_its_answer_is_dropped(tmp_path):
    async def large(call: Call) -> Reply:
        return bytes(50_000_000)

    async with serving(tmp_path, limits=QUICK) as axon:
        axon.route("GET", "/v1/large", large, access=Access.VALIDATOR)
        lines = [f"{name}: {value}" for name, value in signed(VALIDATOR, "GET", "/v1/large").items()]
        _, writer = await asyncio.open_connection("127.0.0.1", axon.port, limit=1)
        writer.write(head("GET", "/v1/large", *lines))
        await eventually(lambda: len(axon._connections.open) == 1)
        await eventually(lambda: not axon._connections.open)
        writer.close()


async def test_connections_are_capped_for_each_address(tmp_path):
    async with serving(tmp_path, limits=Limits(connections_per_address=3)) as axon:
        held = [await asyncio.open_connection("127.0.0.1", axon.port) for _ in range(3)]
        await eventually(lambda: len(axon._connections.open) == 3)
        assert parsed(await say(axon))[0] == 429
        for _, writer in held:
            writer.close()
        await eventually(lambda: not axon._connections.open)
        assert await serves(axon)


async def test_connections_are_capped_in_all(tmp_path):
    async with serving(tmp_path, limits=Limits(max_connections=2)) as axon:
        held = [await asyncio.open_connection("127.0.0.1", axon.port) for _ in range(2)]
        await eventually(lambda: len(axon._connections.open) == 2)
        status, body = parsed(await say(axon))
        assert (status, body["error"]) == (503, "unready")
        for _, writer in held:
            writer.close()


async def test_pipelined_requests_are_answered_in_order(tmp_path):
    async with serving(tmp_path) as axon:
        last = head("GET", "/nothing", "Connection: close")
        raw = await say(axon, head("GET", "/healthz") * 3 + last)
    assert [part[:3] for part in raw.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"200", b"404"]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a TLS hello
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\xff\xff\xff",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_no_request_costs_the_sender_only(tmp_path, caplog, raw):
    async with serving(tmp_path, limits=QUICK) as axon:
        await say(axon, raw)
        assert await serves(axon)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


@pytest.fixture(scope="module")
def nonces(tmp_path_factory):
    store = SqliteNonceStore(tmp_path_factory.mktemp("axon") / "nonces.sqlite")
    yield store
    store.close()


def _fragments() -> st.SearchStrategy[bytes]:
    pieces = [b"GET ", b"POST ", b"/v1/echo", b"/v1/ping", b" HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n"]
    pieces += [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n"]
    pieces += [b"X-Bittensor-Version: 1\r\n", b"X-Bittensor-Hotkey: ", b"X-Bittensor-Nonce: ", b"\xff\0%"]
    return st.lists(st.one_of(st.sampled_from(pieces), st.binary(max_size=20)), max_size=20).map(b"".join)


@given(conversations=st.lists(_fragments(), min_size=1, max_size=20))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_bytes_never_end_the_server(nonces, caplog, conversations):
    async def talk() -> None:
        axon = Axon(
            MINER.ss58, role="miner", metagraph=lambda: METAGRAPH, nonces=nonces, host="127.0.0.1", port=0,
            limits=Limits(header_seconds=0.1, idle_seconds=0.1, total_seconds=0.3, close_seconds=0.1),
        )  # fmt: skip
        axon.route("POST", "/v1/echo", echo, access=Access.VALIDATOR)
        await axon.start()
        try:
            await asyncio.gather(*(say(axon, raw) for raw in conversations))
            assert await serves(axon)
        finally:
            await axon.stop()

    asyncio.run(talk())
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
