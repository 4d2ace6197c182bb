"""Who an axon answers, over real sockets and with real signatures."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from chain_net import eventually
from transport_net import (
    METAGRAPH,
    MINER,
    OTHER_MINER,
    STRANGER,
    VALIDATOR,
    ask,
    echo,
    peer,
    serving,
    signed,
)

from tensorage.errors import RequestError, StaleChainError, StorageError, UsageError
from tensorage.transport.axon import Access, Axon, Call, Reply
from tensorage.transport.dendrite import Dendrite, PeerError, Refused
from tensorage.transport.limits import Limits, Rate
from tensorage.transport.metrics import Metrics
from tensorage.transport.nonces import SqliteNonceStore


def refused(response: httpx.Response, status: int, kind: str) -> str:
    """The one-line reason of a refusal that is as it should be."""
    body = response.json()
    assert (response.status_code, body["error"]) == (status, kind), body
    assert set(body) == {"error", "message"}
    assert body["message"]
    assert "\n" not in body["message"]
    return str(body["message"])


async def test_a_signed_request_reaches_its_handler_with_caller_parameters_and_body(tmp_path):
    async with serving(tmp_path) as axon, Dendrite(VALIDATOR, allow_private=True) as dendrite:
        response = await dendrite.request(
            peer(axon), "POST", "/v1/echo", query={"a": "b c/%?", "n": 7}, body=b"\0raw"
        )
        assert response.body == b"1 {} {'a': 'b c/%?', 'n': '7'} \0raw"
        assert 0 < response.elapsed < 1
        # An encoded slash is part of the parameter, and signed as it was sent.
        target = "/v1/echo/a%20b"
        answer = await ask(axon, "GET", target, headers=signed(OTHER_MINER, "GET", target))
        assert answer.content == b"2 {'name': 'a b'} {} "


async def test_ping_says_who_serves(tmp_path):
    async with serving(tmp_path) as axon, Dendrite(OTHER_MINER, allow_private=True) as dendrite:
        ping = await dendrite.ping(peer(axon))
    assert (ping.role, ping.hotkey) == ("miner", MINER.ss58)
    assert "btauth/1" in ping.protocols


async def test_a_replayed_request_is_refused_also_after_a_restart(tmp_path):
    headers = signed(VALIDATOR, "POST", "/v1/echo", b"x")
    async with serving(tmp_path) as axon:
        assert (await ask(axon, "POST", "/v1/echo", b"x", headers)).status_code == 200
        refused(await ask(axon, "POST", "/v1/echo", b"x", headers), 401, "unauthenticated")
    async with serving(tmp_path) as axon:
        refused(await ask(axon, "POST", "/v1/echo", b"x", headers), 401, "unauthenticated")


async def test_one_signature_is_accepted_once_by_two_axons_over_one_store(tmp_path):
    headers = signed(VALIDATOR, "POST", "/v1/echo", b"x")
    async with serving(tmp_path) as one, serving(tmp_path) as two:
        answers = await asyncio.gather(
            *(ask(axon, "POST", "/v1/echo", b"x", headers) for axon in (one, two) for _ in range(3))
        )
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5


@pytest.mark.parametrize(
    "change", ["receiver", "body", "query", "path", "method", "key", "old", "early", "none"]
)
async def test_what_was_not_signed_like_this_for_us_and_now_is_unauthenticated(tmp_path, change):
    method, target, body = "POST", "/v1/echo?a=1", b"body"
    options = {}
    now = time.time_ns()
    if change == "old":
        options["nonce_ns"] = now - 11 * 10**9
    if change == "early":
        options["nonce_ns"] = now + 60 * 10**9
    headers = signed(
        VALIDATOR, method, target, body, receiver=OTHER_MINER if change == "receiver" else MINER, **options
    )
    if change == "body":
        body = b"Body"
    if change == "query":
        target = "/v1/echo?a=2"
    if change == "path":
        target = "/v1/%65cho?a=1"  # decodes to the same path
    if change == "method":
        headers = signed(VALIDATOR, "PUT", target, body)
    if change == "key":
        headers["X-Bittensor-Hotkey"] = OTHER_MINER.ss58
    if change == "none":
        headers = {}
    async with serving(tmp_path) as axon:
        refused(await ask(axon, method, target, body, headers), 401, "unauthenticated")


async def test_an_unregistered_hotkey_is_forbidden_and_leaves_nothing_in_the_nonce_store(tmp_path):
    async with serving(tmp_path) as axon:
        headers = signed(STRANGER, "GET", "/v1/ping")
        reason = refused(await ask(axon, "GET", "/v1/ping", headers=headers), 403, "forbidden")
        assert "not registered" in reason
        with_store = SqliteNonceStore(tmp_path / "nonces.sqlite")
        assert with_store.check_and_store(STRANGER.ss58, int(headers["X-Bittensor-Nonce"]))
        with_store.close()


async def test_a_route_for_validators_needs_the_permit(tmp_path):
    async with serving(tmp_path) as axon:
        headers = signed(OTHER_MINER, "POST", "/v1/echo")
        reason = refused(await ask(axon, "POST", "/v1/echo", headers=headers), 403, "forbidden")
        assert "validator permit" in reason


async def test_nobody_is_admitted_while_the_metagraph_is_stale(tmp_path):
    def stale():
        raise StaleChainError("the metagraph is 900 s old", remedy="Check ws://10.1.2.3:9944")

    async with serving(tmp_path, metagraph=stale) as axon:
        headers = signed(VALIDATOR, "POST", "/v1/echo")
        reason = refused(await ask(axon, "POST", "/v1/echo", headers=headers), 503, "unready")
        assert "10.1.2.3" not in reason
        refused(await ask(axon, "POST", "/v1/echo"), 401, "unauthenticated")


async def test_a_nonce_store_that_cannot_be_written_admits_nobody_and_blames_nobody(tmp_path, caplog):
    class Broken(SqliteNonceStore):
        def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
            raise StorageError(f"the nonce database {self.path} cannot be written")

    store = Broken(tmp_path / "broken.sqlite")
    axon = Axon(MINER.ss58, role="miner", metagraph=lambda: METAGRAPH, nonces=store, host="127.0.0.1", port=0)
    axon.route("POST", "/v1/echo", echo, access=Access.VALIDATOR)
    await axon.start()
    try:
        headers = signed(VALIDATOR, "POST", "/v1/echo")
        reason = refused(await ask(axon, "POST", "/v1/echo", headers=headers), 500, "internal")
        assert "broken.sqlite" not in reason
        assert "broken.sqlite" in caplog.text
    finally:
        await axon.stop()
        store.close()


async def test_unknown_paths_methods_and_documents_are_refused_in_json(tmp_path):
    async with serving(tmp_path) as axon:
        refused(await ask(axon, "GET", "/v1/nothing"), 404, "unknown")
        refused(await ask(axon, "GET", "/openapi.json"), 404, "unknown")
        refused(await ask(axon, "PUT", "/v1/echo"), 405, "unknown")


async def test_healthz_is_unready_until_the_service_is(tmp_path):
    why: list[str | None] = ["filling the first sector"]
    async with serving(tmp_path, ready=lambda: why[0]) as axon:
        assert refused(await ask(axon, "GET", "/healthz"), 503, "unready") == "filling the first sector"
        why[0] = None
        assert (await ask(axon, "GET", "/healthz")).status_code == 200


async def test_rates_are_kept_for_each_hotkey(tmp_path):
    limits = Limits(per_hotkey=Rate(per_second=0.01, burst=3))
    async with serving(tmp_path, limits=limits) as axon:
        answers = [
            await ask(axon, "GET", "/v1/ping", headers=signed(VALIDATOR, "GET", "/v1/ping")) for _ in range(4)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        refused(answers[3], 429, "rate_limited")
        assert int(answers[3].headers["retry-after"]) > 1
        other = await ask(axon, "GET", "/v1/ping", headers=signed(OTHER_MINER, "GET", "/v1/ping"))
        assert other.status_code == 200


async def test_rates_are_kept_for_each_address_before_a_signature_is_looked_at(tmp_path):
    limits = Limits(per_address=Rate(per_second=0.01, burst=2))
    async with serving(tmp_path, limits=limits) as axon:
        statuses = [(await ask(axon, "POST", "/v1/echo")).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]


async def test_a_handler_refuses_parses_and_fails_without_telling_of_itself(tmp_path, caplog):
    async def fail(call: Call) -> Reply:
        raise ZeroDivisionError("secret of the host")

    async def unknown(call: Call) -> Reply:
        raise RequestError("unknown", f"no sector {call.number('index')}")

    async with serving(tmp_path) as axon:
        axon.route("GET", "/v1/fail", fail, access=Access.REGISTERED)
        axon.route("GET", "/v1/sectors/{index}", unknown, access=Access.REGISTERED)

        async def get(target: str) -> httpx.Response:
            return await ask(axon, "GET", target, headers=signed(VALIDATOR, "GET", target))

        assert refused(await get("/v1/sectors/7"), 404, "unknown") == "no sector 7"
        refused(await get("/v1/sectors/-1"), 400, "malformed")
        refused(await get("/v1/sectors/18446744073709551616"), 400, "malformed")
        assert "secret" not in refused(await get("/v1/fail"), 500, "internal")
        assert "secret of the host" in caplog.text
        assert (await get("/v1/ping")).status_code == 200


async def test_a_handler_may_stream(tmp_path):
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 1000

    async def stream(call: Call) -> Reply:
        return pieces()

    async with serving(tmp_path) as axon, Dendrite(VALIDATOR, allow_private=True) as dendrite:
        axon.route("GET", "/v1/stream", stream, access=Access.VALIDATOR)
        response = await dendrite.request(peer(axon), "GET", "/v1/stream", max_bytes=100_000)
    assert response.body == b"".join(bytes([number]) * 1000 for number in range(100))


async def test_an_answer_that_takes_too_long_is_given_up(tmp_path):
    cancelled = asyncio.Event()

    async def slow(call: Call) -> Reply:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return b""

    async with serving(tmp_path, limits=Limits(total_seconds=0.3)) as axon:
        axon.route("GET", "/v1/slow", slow, access=Access.VALIDATOR)
        headers = signed(VALIDATOR, "GET", "/v1/slow")
        refused(await ask(axon, "GET", "/v1/slow", headers=headers), 503, "unready")
        assert cancelled.is_set()


async def test_a_port_in_use_is_a_usage_error_that_names_it(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        store = SqliteNonceStore(tmp_path / "nonces.sqlite")
        axon = Axon(
            MINER.ss58, role="miner", metagraph=lambda: METAGRAPH, nonces=store, host="127.0.0.1", port=port
        )
        with pytest.raises(UsageError, match=rf"port {port} is in use.*--axon\.port") as caught:
            await axon.start()
        assert caught.value.exit_code == 2
        with pytest.raises(UsageError, match=rf"{port}.*--metrics\.port"):
            Metrics().serve(port)
        store.close()


async def test_draining_finishes_what_runs_and_takes_nothing_new(tmp_path):
    begun = asyncio.Event()

    async def slow(call: Call) -> Reply:
        begun.set()
        await asyncio.sleep(0.4)
        return b"done"

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serving(tmp_path) as axon, Dendrite(VALIDATOR, allow_private=True) as dendrite:
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
        axon.route("GET", "/v1/slow", slow, access=Access.VALIDATOR)
        running = asyncio.create_task(dendrite.request(peer(axon), "GET", "/v1/slow"))
        await begun.wait()
        await axon.drain(5)
        assert (await running).body == b"done"
        with pytest.raises(PeerError):
            await dendrite.ping(peer(axon))


async def test_draining_ends_in_time_whatever_handlers_and_peers_do(tmp_path):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(call: Call) -> Reply:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()
        return b""

    async def large(call: Call) -> Reply:
        return bytes(50_000_000)

    async with (
        serving(tmp_path, limits=Limits(header_seconds=600, total_seconds=600)) as axon,
        Dendrite(VALIDATOR, allow_private=True) as dendrite,
    ):
        axon.route("GET", "/v1/endless", endless, access=Access.VALIDATOR)
        axon.route("GET", "/v1/large", large, access=Access.VALIDATOR)
        running = asyncio.create_task(dendrite.request(peer(axon), "GET", "/v1/endless", deadline=30))
        _, silent = await asyncio.open_connection("127.0.0.1", axon.port)
        _, deaf = await asyncio.open_connection("127.0.0.1", axon.port, limit=1)
        lines = [f"{name}: {value}\r\n" for name, value in signed(VALIDATOR, "GET", "/v1/large").items()]
        deaf.write(("GET /v1/large HTTP/1.1\r\nHost: x\r\n" + "".join(lines) + "\r\n").encode())
        await begun.wait()
        await eventually(lambda: len(axon._connections.open) == 3)
        started = time.monotonic()
        await axon.drain(1)
        assert time.monotonic() - started < 4.5  # what a service has for leaving
        assert ended.is_set()
        assert not axon._connections.open
        with pytest.raises(PeerError):
            await running
        silent.close()
        deaf.close()


async def test_refusals_are_logged_in_one_line_each_and_a_flood_is_not(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    async with serving(tmp_path) as axon:
        await ask(axon, "GET", "/v1/echo/%0aforged%20line")
        for _ in range(60):
            await ask(axon, "POST", "/v1/echo")
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert 1 <= len(lines) <= 10
    assert all("\n" not in line for line in lines)
    assert "status=401 error=unauthenticated address=127.0.0.1" in lines[0]


async def test_metrics_count_requests_by_template_never_by_path(tmp_path):
    metrics = Metrics()
    async with serving(tmp_path, metrics=metrics) as axon:
        for name in ("a", "b"):
            target = f"/v1/echo/{name}"
            await ask(axon, "GET", target, headers=signed(VALIDATOR, "GET", target))
        await ask(axon, "GET", "/made/up")
    count = metrics.registry.get_sample_value
    name = "tensorage_axon_requests_total"
    assert count(name, {"route": "/v1/echo/{name}", "method": "GET", "status": "200"}) == 2
    assert count(name, {"route": "-", "method": "GET", "status": "404"}) == 1


async def test_a_refusal_reaches_the_asker_as_a_typed_error(tmp_path):
    async with serving(tmp_path) as axon, Dendrite(STRANGER, allow_private=True) as dendrite:
        with pytest.raises(Refused) as caught:
            await dendrite.ping(peer(axon))
    assert (caught.value.status, caught.value.kind) == (403, "forbidden")


async def test_admission_costs_little(tmp_path):

    async with serving(tmp_path) as axon, Dendrite(VALIDATOR, allow_private=True) as dendrite:
        times = []
        for _ in range(40):
            times.append((await dendrite.request(peer(axon), "POST", "/v1/echo", body=b"x" * 300)).elapsed)
    # About 1 ms on one core; 40 ms is what a forgotten TCP_NODELAY costs every one of them.
    assert min(times) < 0.03
