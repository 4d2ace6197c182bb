"""Datasets in the storage subnet: put by `publish`, fetched by `buy`, on real miners that fail and lie."""

import asyncio
import http.client
import http.server
import json
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from dataset_market import ID, auth, open_shop, publishing, record
from dataset_shop import TOKEN, Shop, made

from tensorage.client.command import access_of
from tensorage.coding.manifest import Manifest
from tensorage.config import run
from tensorage.dataset.buyer.buyer_commands import app
from tensorage.dataset.buyer.entitling import TOKEN_VARIABLE
from tensorage.dataset.chunks import CHUNK_SIZE
from tensorage.dataset.links import SubnetLink
from tensorage.dataset.server.depot import Depot, Rent
from tensorage.dataset.signing import KEY_NAME, make_key, read_key
from tensorage.dataset.store import Store
from tensorage.demo.customer import Customer
from tensorage.demo.network import Network, Shape

V1, V2 = made(20 * CHUNK_SIZE + 7, 1), made(CHUNK_SIZE + 5, 2)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with Network(tmp_path_factory.mktemp("net"), Shape(miners=4, chunks=40)) as running:
        running.wait_for_room()
        yield running


@pytest.fixture(scope="module")
def owner(network, tmp_path_factory):
    """An account at the gateway; its client home is the owner's."""
    return Customer(network, tmp_path_factory.mktemp("client") / "owner")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An owner's home with one version."""
    where = tmp_path_factory.mktemp("market") / "home"
    with Store(where) as store:
        make_key(where / KEY_NAME, os.urandom)
        record(store, where.parent / "bundles", V1, signer=read_key(where / KEY_NAME))
    return where


@pytest.fixture
def publish(owner, home, monkeypatch):
    monkeypatch.setenv("TENSORAGE_API_KEY", owner.api_key)
    monkeypatch.setenv("TENSORAGE_GATEWAY", owner.gateway)
    monkeypatch.setenv("TENSORAGE_HOME", str(owner.home))
    return lambda *options: publishing(home, "--no-tunnel", "--store", "subnet", *options)


@pytest.fixture(scope="module")
def link(network, owner, tmp_path_factory):
    """A link to V1, put by hand."""
    path = tmp_path_factory.mktemp("put") / "v1"
    path.write_bytes(V1)
    network.wait("room on all miners", lambda: owner.put(path, "v1", "--replace").code == 0, 60)
    return owner.run("share", "v1", "-o", "-").stdout


@pytest.fixture
def buyer(network, tmp_path, monkeypatch, capsys):
    """Buys at a URL, with a token, on the network of the miners: (exit code, receipt, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORAGE_DATASET_HOME", str(tmp_path / "buyer"))

    def buy(url, token=TOKEN, *, local=True):
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        flags = network.chain_flags if local else []
        code = run(app, ["buy", url, "--version=1", "--json", *flags])
        said = capsys.readouterr()
        return code, json.loads(said.out) if code == 0 else None, said.err

    return buy


def chunks_of(receipt):
    """Chunks by source: of the owner, and of the subnet."""
    return [source["chunks"] for source in receipt["sources"]]


class Relay(http.server.ThreadingHTTPServer):
    """Passes GET on to another server; `spoil` may change the body of an answer, or send it itself."""

    daemon_threads = True

    def __init__(self, host, port, spoil):
        super().__init__(("127.0.0.1", 0), _Relayed)
        self.behind, self.spoil = (host, port), spoil
        self.spoilt = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Relayed(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        behind = http.client.HTTPConnection(*self.server.behind, timeout=30)
        try:
            behind.request("GET", self.path, headers=dict(self.headers))
            answer = behind.getresponse()
            self.server.spoil(self, answer)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # one of the two went away
        finally:
            behind.close()

    def begin(self, answer):
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "server", "date", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments):
        """Nothing."""


def as_it_is(handler, answer):
    body = answer.read()
    handler.begin(answer)
    handler.wfile.write(body)


@contextmanager
def relay(host, port, spoil):
    server = Relay(host, port, spoil)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def in_front_of(server, download):
    """A relay to a dataset server, with another way of answering downloads."""

    def spoil(handler, answer):
        (download if "/download" in handler.path else as_it_is)(handler, answer)

    return relay("127.0.0.1", int(server.url.rpartition(":")[2]), spoil)


def member(home, version=1):
    with Store(home) as store:
        return store.mint(ID, label="m", max_version=version)


def sources(server, token=None, version=1):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
        return client.get(f"/dataset/{ID}/sources?version={version}", headers=auth(token))


def file_id(server, token, version=1):
    return Manifest.parse_link(sources(server, token, version).json()["subnet"].encode())[0].id


def test_what_is_published_is_put_once_and_its_links_go_to_members_only(network, home, publish):
    token, both = member(home), member(home, 2)
    with publish() as server:
        shown = sources(server, token)
        link = shown.json()["subnet"]
        manifest, key = Manifest.parse_link(link.encode())
        assert manifest.size == len(V1) and manifest.parity_shards > 0
        assert shown.headers["cache-control"] == "no-store"
        with Store(home) as store:
            record(store, home.parent / "bundles", V2, signer=read_key(home / KEY_NAME))
        network.wait("version 2", lambda: sources(server, both, 2).json().get("subnet") is not None, 60)
        second = file_id(server, both, 2)
        for answer in [
            sources(server),
            sources(server, "tensorage-member-" + "0" * 64),
            sources(server, token, 2),
        ]:
            assert answer.status_code in (401, 403) and "subnet" not in answer.text
        assert server.stop() == 0
        said = "".join(server.said)
        assert "putting version 1" in said and "putting version 2" in said
        assert key.hex() not in said and key.hex() not in json.dumps(server.told)
    with publish("--gateway=http://127.0.0.1:1") as server:  # what is stored needs no gateway
        assert (file_id(server, both), file_id(server, both, 2)) == (manifest.id, second)
        assert server.stop() == 0
        assert "putting" not in "".join(server.said)
    assert (home / "datasets.sqlite").stat().st_mode & 0o777 == 0o600


def test_nothing_is_published_where_the_subnet_is_not_to_be_reached(publish, home, tmp_path):
    with Store(tmp_path / "home") as store:
        make_key(tmp_path / "home" / KEY_NAME, os.urandom)
        record(store, tmp_path / "bundles", V2, signer=read_key(tmp_path / "home" / KEY_NAME))
    flags = ("--no-tunnel", "--store", "subnet", "--gateway", "http://127.0.0.1:1")
    with (
        pytest.raises(
            AssertionError, match=r"exit 1: (?s:.*)gateway is away(?s:.*)name another with --gateway"
        ),
        publishing(tmp_path / "home", *flags),
    ):
        pass


def test_the_owner_may_die_once_it_has_said_where_the_file_is(home, publish, buyer, tmp_path):
    token = member(home)
    with publish() as server:

        def die(handler, answer):
            server.process.kill()
            server.process.wait(20)
            handler.close_connection = True

        with in_front_of(server, die) as front:
            code, receipt, said = buyer(f"{front.url}/dataset/{ID}", token)
    assert code == 0, said
    assert (tmp_path / f"{ID}-v1.jsonl").read_bytes() == V1
    assert chunks_of(receipt) == [0, 21]


def test_miners_make_up_for_an_owner_that_is_slow(home, publish, buyer, tmp_path):
    token = member(home)

    def slowly(handler, answer):
        handler.begin(answer)
        while piece := answer.read(CHUNK_SIZE // 16):
            handler.wfile.write(piece)
            time.sleep(0.05)

    with publish() as server, in_front_of(server, slowly) as front:
        code, receipt, said = buyer(f"{front.url}/dataset/{ID}", token)
    assert code == 0, said
    of_owner, of_subnet = chunks_of(receipt)
    assert of_subnet > of_owner


@pytest.fixture
def shop(link):
    """A seller in this process, that names the link and has no bytes itself unless a test gives it some."""
    with Shop(V1) as running:
        running.subnet = link
        running.files.clear()
        yield running


def test_a_link_that_is_no_good_is_named_and_the_owner_serves(network, owner, link, shop, buyer, tmp_path):
    small = tmp_path / "small"
    small.write_bytes(V2)
    owner.put(small, "small", "--replace").json()
    other = owner.run("share", "small", "-o", "-").stdout
    refusals = {
        other: f"of {len(V2)} bytes where {len(V1)} are signed",
        link.replace('"size":', '"size":1'): "not the one that was written with this key",
        "é": "is not used",
        "x" * 4_000_000: "answers with more than",
    }
    shop.files["/data/1"] = V1
    for text, words in refusals.items():
        shop.subnet = text
        code, receipt, said = buyer(shop.place)
        assert words in said, said
        assert code == (1 if "answers" in words else 0)
        assert code or chunks_of(receipt) == [21]
        (tmp_path / "chats-v1.jsonl").unlink(missing_ok=True)
    shop.subnet = link
    code, receipt, said = buyer(shop.place, local=False)
    assert code == 0 and chunks_of(receipt) == [21, 0]
    assert "source the storage subnet lies at private addresses" in said


def test_a_link_that_lies_about_what_it_is_of_delays_nothing(owner, link, shop, buyer, tmp_path):
    path = tmp_path / "other"
    path.write_bytes(made(len(V1), 9))
    owner.put(path, "other", "--replace").json()
    manifest, key = Manifest.parse_link(owner.run("share", "other", "-o", "-").stdout.encode())
    honest, _ = Manifest.parse_link(link.encode())
    shop.subnet = replace(manifest, sha256=honest.sha256).link(key).decode()
    code, _, said = buyer(shop.place)
    assert code == 1 and "the storage subnet sent a wrong chunk" in said
    shop.files["/data/1"] = V1
    code, receipt, said = buyer(shop.place)
    assert code == 0, said
    assert chunks_of(receipt) == [21, 0]
    assert (tmp_path / "chats-v1.jsonl").read_bytes() == V1


def test_a_miner_that_sends_wrong_bytes_is_named_and_made_up_for(link, shop, buyer, tmp_path):
    manifest, key = Manifest.parse_link(link.encode())
    liar = manifest.stripes[0].shards[0]

    def forge(handler, answer):
        body = bytearray(answer.read())
        if answer.status == 200 and "?leaf=" in handler.path:
            body[-1] ^= 1
            handler.server.spoilt += 1
        handler.begin(answer)
        handler.wfile.write(body)

    with relay(liar.ip, liar.port, forge) as server:
        port = server.server_address[1]

        def moved(shard):
            return replace(shard, port=port) if shard.hotkey == liar.hotkey else shard

        stripes = tuple(
            replace(stripe, shards=[moved(shard) for shard in stripe.shards]) for stripe in manifest.stripes
        )
        shop.subnet = replace(manifest, stripes=stripes).link(key).decode()
        code, receipt, said = buyer(shop.place)
    assert code == 0, said
    assert server.spoilt and f"at miner {liar.hotkey}, was wrong and made up for" in said
    assert (tmp_path / "chats-v1.jsonl").read_bytes() == V1
    assert chunks_of(receipt) == [0, 21]


def test_a_version_that_is_about_to_expire_is_put_anew(owner, home, monkeypatch):
    access = access_of(owner.gateway, owner.api_key, ("", "", home), ("finney", None, 0))
    said = []

    def keep(after):
        with (
            Store(home) as store,
            Depot(
                store,
                ID,
                Rent(access, owner.home, 86_400),
                clock=lambda: int(time.time()) + after,
                tell=said.append,
                warn=said.append,
            ) as depot,
        ):
            return asyncio.run(depot.keep(2))

    before, after = keep(0), keep(86_400 * 29)
    assert keep(0) == after and before.file_id != after.file_id
    assert sum("putting" in line for line in said) == 1


async def test_a_link_is_shown_while_the_file_lasts_and_while_the_owner_wants_it(tmp_path):
    for wanted in (True, False):
        async with open_shop(tmp_path / str(wanted), V2, subnet=wanted) as shop:
            token = shop.token(1)
            entry = shop.store.log(ID).at(1).entry
            end = shop.clock.now + 100
            kept = SubnetLink(ID, 1, entry.file_hash, bytes(16), b"{}", shop.clock.now, end)
            shop.store.keep_link(kept)
            assert "{}" not in repr(kept)
            assert (await shop.get("sources", token)).json()["subnet"] == ("{}" if wanted else None)
            shop.clock.now = end
            assert (await shop.get("sources", token)).json()["subnet"] is None


def test_m_miners_and_the_owner_may_be_gone(network, link, shop, buyer, tmp_path):
    manifest, _ = Manifest.parse_link(link.encode())
    for name in network.miners[: manifest.parity_shards]:
        network.kill(name)
    code, receipt, said = buyer(shop.place)
    assert code == 0, said
    assert (tmp_path / "chats-v1.jsonl").read_bytes() == V1
    assert chunks_of(receipt) == [0, 21]
    shop.files["/data/1"] = V1
    for fail in (network.hold, network.kill):
        for name in network.miners[manifest.parity_shards :]:
            fail(name)
        (tmp_path / "chats-v1.jsonl").unlink()
        code, receipt, said = buyer(shop.place)
        assert code == 0, said
        assert chunks_of(receipt) == [21, 0]
