"""Clients' commands on a subnet of real processes: what is put comes back, whatever is killed meanwhile."""

import http.client
import http.server
import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tensorage.client.home import CATALOG
from tensorage.demo.customer import Customer
from tensorage.demo.network import Network, Shape

K, M = 2, 4
CODE = ("--data-shards", str(K), "--parity-shards", str(M))
MINERS = K + M + 1
STRIPE = K << 22


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with Network(tmp_path_factory.mktemp("net"), Shape(miners=MINERS, chunks=96)) as running:
        running.wait_until_proven()
        yield running


@pytest.fixture(scope="module")
def alice(network, tmp_path_factory) -> Customer:
    home = tmp_path_factory.mktemp("home")
    customer = Customer(network, home / "alice")
    put_whole(network, customer, random_file(home / "probe", 1000), "probe")
    return customer


@pytest.fixture
def killed(network, alice, tmp_path):
    """Kills miners; starts them again afterwards, and waits until the gateway knows where they are."""
    gone: list[str] = []

    def kill(names: list[str]) -> None:
        for name in names:
            network.kill(name)
            gone.append(name)

    yield kill
    for name in gone:
        network.start(name)
    if gone:
        put_whole(network, alice, random_file(tmp_path / "probe", 1000), "probe")


def put_whole(network: Network, customer: Customer, path: Path, name: str) -> None:
    """Put with all shards, again while the gateway has not heard from miners that were just started."""

    def whole() -> bool:
        outcome = customer.put(path, name, *CODE, "--replace")
        return outcome.code == 0 and outcome.json()["short_stripes"] == 0

    network.wait(f"room for {name} on all miners", whole, 240)


def random_file(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def rows(alice: Customer, query: str, *values: object) -> list[tuple]:
    """Rows of the client's catalog."""
    path = alice.home / CATALOG
    if not path.exists():
        return []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return db.execute(query, values).fetchall()
    except sqlite3.OperationalError:  # it is being made
        return []
    finally:
        db.close()


def whole_stripes(alice: Customer, name: str) -> set[int]:
    query = "SELECT number FROM stripes JOIN files ON id = file WHERE name = ? AND whole"
    return {number for (number,) in rows(alice, query, name)}


def tickets(alice: Customer, name: str) -> dict[tuple[int, int], bytes]:
    query = "SELECT stripe, number, ticket FROM shards JOIN files ON id = file WHERE name = ?"
    return {(stripe, number): ticket for stripe, number, ticket in rows(alice, query, name)}


def until(holds, process: subprocess.Popen, seconds: float = 120) -> bool:
    """Wait until it holds (True), or the process has ended (False)."""
    end = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.005)
    return True


def started_put(alice: Customer, path: Path, name: str, *flags: str) -> subprocess.Popen:
    return alice.start("put", str(path), f"--name={name}", f"--gateway={alice.gateway}", *CODE, *flags)


def killed_put(alice: Customer, path: Path, name: str) -> set[int]:
    """Begin to put, and kill it when some of its stripes are whole; which ones."""
    process = started_put(alice, path, name)
    try:
        assert until(lambda: whole_stripes(alice, name), process), process.communicate()
    finally:
        process.kill()
        process.communicate()
    return whole_stripes(alice, name)


def test_what_is_put_comes_back(alice, tmp_path):
    path = random_file(tmp_path / "file", 2 * STRIPE + 1_234_567)
    put = alice.put(path, "file", *CODE).json()
    assert (put["size"], put["data_shards"], put["parity_shards"]) == (path.stat().st_size, K, M)
    assert (put["resumed"], put["short_stripes"]) == (False, 0)
    got = alice.get("file", tmp_path / "back").json()
    assert (got["sha256"], got["wrong_shards"]) == (put["sha256"], [])
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert alice.get(put["id"], tmp_path / "by id").code == 0
    for span in ((0, 0), (STRIPE - 7, STRIPE + 7), (3_000_000, 5_000_000), (path.stat().st_size - 1, None)):
        text = f"--range={span[0]}-{'' if span[1] is None else span[1]}"
        assert alice.get("file", tmp_path / "part", text).code == 0
        end = None if span[1] is None else span[1] + 1
        assert (tmp_path / "part").read_bytes() == path.read_bytes()[span[0] : end]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "by id", "file", "part"]


def test_an_empty_file_and_a_pipe_come_back(alice, tmp_path):
    random_file(tmp_path / "empty", 0)
    assert alice.put(tmp_path / "empty", "empty", *CODE).json()["size"] == 0
    assert alice.get("empty", tmp_path / "nothing").code == 0
    assert (tmp_path / "nothing").read_bytes() == b""
    content = os.urandom(STRIPE + 5)
    process = alice.start(
        *("put", "-", "--name=pipe", f"--gateway={alice.gateway}", "--json", *CODE),
        stdin=subprocess.PIPE,
        text=False,
    )
    output, said = process.communicate(content, timeout=300)
    assert process.returncode == 0 and json.loads(output)["size"] == len(content), said
    process = alice.start("get", "pipe", "-o", "-", text=False)
    assert process.communicate(timeout=300)[0] == content and process.returncode == 0


def test_a_directory_comes_back_by_a_link_without_any_account(network, alice, tmp_path):
    root = tmp_path / "photos"
    (root / "deep").mkdir(parents=True)
    random_file(root / "deep" / "x", 3_000_000)
    (root / "deep" / "link").symlink_to("x")
    assert alice.put(root, "photos", *CODE).code == 0
    link = tmp_path / "photos.link"
    assert alice.run("share", "photos", "-o", str(link)).code == 0
    assert link.stat().st_mode & 0o777 == 0o600
    stranger = {key: value for key, value in os.environ.items() if not key.startswith("TENSORAGE")}
    stranger["TENSORAGE_HOME"] = str(tmp_path / "no home")

    def get(path: Path, *flags: str) -> subprocess.CompletedProcess:
        process = alice.start("get", str(path), "-o", str(tmp_path / "back"), *flags, env=stranger)
        output, said = process.communicate(timeout=300)
        return subprocess.CompletedProcess([], process.returncode, output, said)

    refused = get(link)
    assert refused.returncode == 2 and "private addresses" in refused.stderr
    for bit in (40, 8 * 2000 + 3, 8 * link.stat().st_size - 12):
        data = bytearray(link.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped.link").write_bytes(data)
        flipped = get(tmp_path / "flipped.link", *network.chain_flags)
        assert flipped.returncode == 1 and flipped.stderr.startswith("error: "), flipped
        assert flipped.stderr.count("\n") == 1
        assert not (tmp_path / "back").exists()
    assert get(link, *network.chain_flags).returncode == 0
    assert (tmp_path / "back" / "deep" / "link").read_bytes() == (root / "deep" / "x").read_bytes()
    assert not (tmp_path / "no home").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith((".part", ".json"))]


def test_a_hotkey_finds_its_gateway_on_the_chain(network, alice, tmp_path):
    miner = network.miners[0]
    named = ["gateway", "keys", "create", "bob", "--quota=1TB", f"--hotkey={network.hotkey(miner)}"]
    assert alice.run(*named, *network.stage.flags(alice.validator)).code == 0
    path = random_file(tmp_path / "file", 100_000)
    command = ["put", str(path), "--name=signed", "--json", *CODE, *network.chain_flags]
    command += [f"--wallet.name={miner}", f"--wallet.path={network.stage.wallets}"]
    nothing = {"TENSORAGE_API_KEY", "TENSORAGE_GATEWAY"}
    environment = {name: value for name, value in os.environ.items() if name not in nothing}
    bob = alice.start(*command, env={**environment, "TENSORAGE_HOME": str(tmp_path / "bob")})
    stdout, stderr = bob.communicate(timeout=120)
    assert bob.returncode == 0, stderr
    assert json.loads(stdout)["gateway"] == alice.gateway
    back = alice.run("get", "signed", "-o", str(tmp_path / "back"), f"--home={tmp_path / 'bob'}")
    assert back.code == 0, back.stderr
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_removed_file_is_gone_until_it_is_brought_back(alice, tmp_path):
    path = random_file(tmp_path / "file", 100_000)
    id = alice.put(path, "removed", *CODE).json()["id"]
    assert alice.run("rm", "removed", f"--gateway={alice.gateway}").code == 0
    assert "rm --undo" in alice.get("removed", tmp_path / "back").stderr
    assert not (tmp_path / "back").exists()
    states = {row["id"]: row["state"] for row in alice.run("ls", "--all", "--json").json()}
    assert states[id] == "trash"
    assert alice.run("rm", "--undo", "removed", f"--gateway={alice.gateway}").code == 0
    assert alice.get("removed", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_replacement_takes_the_name_when_it_is_whole(alice, tmp_path):
    first, second = random_file(tmp_path / "1", 100_000), random_file(tmp_path / "2", 3 * STRIPE)
    alice.put(first, "report", *CODE).json()
    assert "--replace" in alice.put(second, "report", *CODE).stderr
    process = started_put(alice, second, "report", "--replace")
    try:
        assert until(lambda: whole_stripes(alice, "report") - {0}, process)
    finally:
        process.kill()
        process.communicate()
    assert alice.get("report", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == first.read_bytes()
    put = alice.put(second, "report", *CODE, "--replace").json()
    assert put["resumed"] and put["replaced"]
    assert alice.get("report", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == second.read_bytes()


def test_a_killed_put_goes_on_with_the_stripes_that_were_not_whole(alice, tmp_path):
    path = random_file(tmp_path / "file", 8 * STRIPE)
    whole = killed_put(alice, path, "resumed")
    before = tickets(alice, "resumed")
    put = alice.put(path, "resumed", *CODE).json()
    assert put["resumed"] and put["short_stripes"] == 0
    after = tickets(alice, "resumed")
    assert {key: after[key] for key in before if key[0] in whole} == {
        key: ticket for key, ticket in before.items() if key[0] in whole
    }
    assert alice.get("resumed", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_other_bytes_are_never_put_under_the_key_of_an_upload_that_was_begun(alice, tmp_path):
    path = random_file(tmp_path / "file", 8 * STRIPE)
    killed_put(alice, path, "changed")
    (key,) = rows(alice, "SELECT key FROM files WHERE name = 'changed'")
    with path.open("r+b") as file:
        file.write(b"other bytes")
    sent = tickets(alice, "changed")
    refused = alice.put(path, "changed", *CODE)
    assert refused.code == 1 and "is not what the upload" in refused.stderr
    assert tickets(alice, "changed") == sent
    put = alice.put(path, "changed", *CODE, "--replace").json()
    assert not put["resumed"]
    assert rows(alice, "SELECT key FROM files WHERE name = 'changed'") != [key]
    assert alice.get("changed", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_killed_get_goes_on_and_has_no_final_name_before(alice, tmp_path):
    path = random_file(tmp_path / "file", 10 * STRIPE)
    alice.put(path, "long", *CODE).json()
    back, note = tmp_path / "back", tmp_path / "back.part.json"

    def begun() -> bool:
        try:
            return json.loads(note.read_text())["bytes"] > 0
        except FileNotFoundError:
            return False

    for _ in range(5):
        process = alice.start("get", "long", "-o", str(back))
        caught = until(begun, process)
        process.kill()
        process.communicate()
        if caught and not back.exists():
            break
        back.unlink()  # it was faster than we
    assert note.exists() and not back.exists()
    got = alice.get("long", back).json()
    assert got["resumed_at"] > 0
    assert back.read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "file"]


def test_of_two_puts_of_one_name_one_wins_and_the_other_says_so(alice, tmp_path):
    paths = [random_file(tmp_path / str(number), 3 * STRIPE) for number in range(2)]
    processes = [started_put(alice, path, "both") for path in paths]
    said = [process.communicate(timeout=300)[1] for process in processes]
    codes = [process.returncode for process in processes]
    winner = codes.index(0)
    assert codes[1 - winner] in (1, 2), said
    assert "another process" in said[1 - winner] or "stored already" in said[1 - winner]
    assert alice.get("both", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == paths[winner].read_bytes()


class Forger(http.server.BaseHTTPRequestHandler):
    """Passes requests on to a miner, and changes one byte of each piece of a shard in the answer."""

    def do_GET(self) -> None:
        miner = http.client.HTTPConnection(*self.server.miner, timeout=30)
        miner.request("GET", self.path, headers=dict(self.headers))
        answer = miner.getresponse()
        body = bytearray(answer.read())
        if answer.status == 200 and "?leaf=" in self.path:
            body[-1] ^= 1
            self.server.forged += 1
        self.send_response(answer.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def test_wrong_bytes_are_found_at_their_shard_made_up_for_and_reported(network, alice, tmp_path):
    path = random_file(tmp_path / "file", 3 * STRIPE)
    alice.put(path, "forged", *CODE).json()
    ((hotkey, ip, port),) = rows(
        alice,
        "SELECT DISTINCT hotkey, ip, port FROM shards JOIN files ON id = file "
        "WHERE name = 'forged' AND stripe = 0 AND number = 0",
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forger)
    server.miner, server.forged = (ip, port), 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        db = sqlite3.connect(alice.home / CATALOG, timeout=10)
        with db:
            db.execute("UPDATE shards SET port = ? WHERE hotkey = ?", (server.server_address[1], hotkey))
        db.close()
        got = alice.get("forged", tmp_path / "back").json()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        db = sqlite3.connect(alice.home / CATALOG, timeout=10)
        with db:
            db.execute("UPDATE shards SET port = ? WHERE hotkey = ?", (port, hotkey))
        db.close()
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert server.forged and {wrong["hotkey"] for wrong in got["wrong_shards"]} == {hotkey}
    assert {"stripe": 0, "number": 0, "hotkey": hotkey} in got["wrong_shards"]


def test_a_file_outlives_the_loss_of_m_miners_while_it_is_put(network, alice, tmp_path, killed):
    path = random_file(tmp_path / "file", 8 * STRIPE)
    process = started_put(alice, path, "outlives", "--json")
    try:
        assert until(lambda: whole_stripes(alice, "outlives"), process)
        killed(network.miners[:M])
        output, said = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, said
    short = json.loads(output)["short_stripes"]
    assert short and f"{short} of" in said and "the validator repairs them" in said
    assert alice.get("outlives", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    verified = alice.run("verify", "outlives", "--json")
    assert verified.code == 1
    assert json.loads(verified.stdout)["verdict"] == "readable"


def test_a_file_is_read_while_m_miners_are_killed_and_hang(network, alice, tmp_path, killed):
    path = random_file(tmp_path / "file", 10 * STRIPE)
    put_whole(network, alice, path, "survives")
    network.hold(network.miners[0])
    try:
        process = alice.start("get", "survives", "-o", str(tmp_path / "back"))
        try:
            assert until((tmp_path / "back.part").exists, process)
            killed(network.miners[1:M])
            _, said = process.communicate(timeout=300)
        finally:
            process.kill()
            process.communicate()
    finally:
        network.go_on(network.miners[0])
    assert process.returncode == 0, said
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_full_account_is_told_so_and_what_was_stored_stays(network, tmp_path):
    poor = Customer(network, tmp_path / "poor", quota="40MB")
    small, large = random_file(tmp_path / "small", 100_000), random_file(tmp_path / "large", 3 * STRIPE)
    put_whole(network, poor, small, "small")
    refused = poor.put(large, "large", *CODE)
    assert refused.code == 1 and "quota" in refused.stderr and refused.stderr.count("error") == 1
    assert poor.get("small", tmp_path / "back").code == 0
    assert poor.run("rm", "large", f"--gateway={poor.gateway}").code == 0
    assert [row["name"] for row in poor.run("ls", "--all", "--json").json()] == ["small"]
    shutil.rmtree(poor.home)
