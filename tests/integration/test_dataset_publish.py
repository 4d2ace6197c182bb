"""`publish` and `approve` as real processes: what they leave behind, whom they let in, how they end."""

import asyncio
import datetime
import io
import json
import os
import random
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dataset_market import COMMAND, ID, auth, publishing, record, told
from typer.testing import CliRunner

from tensorage.chain.wallet import Hotkey
from tensorage.dataset.bundle import Ingested
from tensorage.dataset.chunks import CHUNK_SIZE, Digest, hash_stream
from tensorage.dataset.identity import Signer
from tensorage.dataset.manifest import File, manifest_hash
from tensorage.dataset.server import approve_command, publish_command
from tensorage.dataset.server.state import running
from tensorage.dataset.signing import KEY_NAME, make_key, read_key
from tensorage.dataset.store import Store
from tensorage.errors import TensorageError, UsageError

V1, V2 = b'{"a":1}\n' * 1000, b'{"b":2}\n' * 1000


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An owner's home with one version, and a secp256k1 key to sign with."""
    return make_home(tmp_path)


def make_home(directory: Path) -> Path:
    where = directory / "home"
    with Store(where) as store:
        make_key(where / KEY_NAME, os.urandom)
        record(store, directory / "bundles", V1, signer=read_key(where / KEY_NAME))
    return where


@pytest.fixture
def hollow_home(tmp_path: Path) -> Iterator[Path]:
    """The same where holes of files are read without filling the page cache, if there is such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as directory:
        yield make_home(Path(directory))


def run(home: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TENSORAGE_DATASET_HOME": str(home)}
    environment["PATH"] = os.environ["PATH"] if path is None else path
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def approve(home: Path, *arguments: str) -> tuple[int, str]:
    """Run `approve` within this process; its exit code, and what it says."""
    result = CliRunner().invoke(approve_command.app, [*arguments, "--home", str(home)])
    if isinstance(result.exception, TensorageError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None, result.exception
    return result.exit_code, result.output


def join(client: httpx.Client, worker: str) -> dict[str, str]:
    return client.post("/auth/device/code", json={"worker": worker}).json()  # type: ignore[no-any-return]


def poll(client: httpx.Client, code: dict[str, str]) -> dict[str, str]:
    reply = client.post("/auth/device/token", json={"device_code": code["device_code"]})
    return reply.json()  # type: ignore[no-any-return]


def test_a_published_dataset_is_joined_with_approve_grows_and_ends_cleanly(
    home: Path, tmp_path: Path
) -> None:
    with publishing(home, "--no-tunnel") as server:
        path = home / "serve" / f"{ID}.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (state,) = running(home)
        assert (state.local_addr, state.public_url) == (server.url, None)
        assert re.fullmatch("tensorage-owner-[0-9a-f]{48}", state.owner_token)
        command_line = Path(f"/proc/{server.process.pid}/cmdline").read_text()
        with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
            code = join(client, "gpu\x1b[2J-7")
            approved = run(home, "approve", code["user_code"].lower())
            assert (approved.returncode, approved.stderr) == (0, "")
            assert approved.stdout == f"Approved {code['user_code']} into \"{ID}\", for 'gpu [2J-7'\n"
            status, words = approve(home, code["user_code"], "--json")
            assert (status, "approved already" in words) == (2, True)
            token = poll(client, code)["token"]
            assert client.get(f"/dataset/{ID}/download", headers=auth(token)).content == V1
            with Store(home) as store:
                record(store, tmp_path / "bundles", V2, signer=read_key(home / KEY_NAME))
            owner = auth(state.owner_token)
            assert client.get(f"/dataset/{ID}/download", headers=owner).content == V2
        twice = run(home, "publish", ID, "--signer", "secp256k1", "--no-tunnel")
        assert (twice.returncode, "published already" in twice.stderr) == (2, True)
        assert server.stop() == 0
        assert not path.exists()
        assert running(home) == []
        secrets = (state.owner_token, token)
        assert not any(secret in text for secret in secrets for text in [*server.said, command_line])
    with Store(home) as store:
        assert [(found.label, found.version, found.stop) for found in store.downloads(ID)] == [
            ("gpu [2J-7", 1, len(V1))
        ]
    status, words = approve(home, "AAAA-AAAA")
    assert (status, "no dataset is running" in words) == (2, True)


def test_approve_asks_which_of_several_and_forgets_servers_that_were_killed(
    home: Path, tmp_path: Path
) -> None:
    with Store(home) as store:
        record(store, tmp_path / "bundles", V2, id="other", signer=read_key(home / KEY_NAME))
    with publishing(home, "--no-tunnel") as one, publishing(home, "--no-tunnel", id="other"):
        status, words = approve(home, "AAAA-AAAA")
        assert (status, "multiple datasets running" in words) == (2, True)
        with httpx.Client(base_url=one.url, trust_env=False, timeout=20) as client:
            code = join(client, "w")
            assert approve(home, code["user_code"], "--dataset", ID)[0] == 0
            assert poll(client, code)["status"] == "authorized"
        assert one.stop(signal.SIGKILL) == -signal.SIGKILL
        assert (home / "serve" / f"{ID}.json").exists()
        assert [state.id for state in running(home)] == ["other"]
        status, words = approve(home, "AAAA-AAAA", "--dataset", ID)
        assert (status, "not running" in words) == (2, True)
        status, words = approve(home, "AAAA-AAAA")
        assert (status, "no such code" in words) == (2, True)
    with publishing(home, "--no-tunnel"):
        assert [state.id for state in running(home)] == [ID]


def test_what_would_give_the_dataset_away_is_refused(home: Path, tmp_path: Path) -> None:
    payee = Hotkey.from_uri("//Alice").ss58
    refusals = {
        ("--membership", "open", "--price", "1", "--pay-to", payee): "without paying",
        ("--host", "0.0.0.0"): "--tls-cert",
        ("--membership", "all"): "open or invite",
        ("--price", "0"): "not above zero",
        ("--price", "1e3"): "plain decimal",
        ("--price-per-mb", ""): "no price",
        ("--price", "1", "--price-per-mb", "1"): "two prices",
        ("--pay-to", payee): "no price",
        ("--price", "1"): "cannot be paid on bittensor",  # the owner's key is none of that chain
        ("--price", "1", "--chain", "base", "--pay-to", payee): "cannot be paid on base",
        ("--price", "1", "--chain", "dogecoin", "--pay-to", payee): "no paying on chain 'dogecoin'",
        ("--tls-cert", "a.pem"): "--tls-key",
        ("--tls-cert", "a.pem", "--tls-key", "b.pem"): "cannot be used for TLS",
        ("--public-url", "http://data.example"): "in the clear",
        ("--store", "shelf"): "local or subnet",
        ("--store", "subnet", "--wallet.path", str(tmp_path)): "Name an API key",
        ("--expires", "1d"): "--store subnet",
    }
    for options, words in refusals.items():
        arguments = [ID, "--home", str(home), "--signer", "secp256k1", "--no-tunnel", *options]
        result = CliRunner().invoke(publish_command.app, arguments)
        assert isinstance(result.exception, UsageError), (options, result)
        assert re.search(words, str(result.exception)), (options, result.exception)
    missing = run(home, "publish", ID, "--signer", "secp256k1", "--tunnel", path="/nonexistent")
    assert missing.returncode == 2
    assert "cloudflared is not on the PATH. Install cloudflared" in missing.stderr
    with Store(home) as store:
        path = store.artifact(ID, 1).path
    path.chmod(0o600)
    path.write_bytes(V1[:-1] + b" ")
    edited = run(home, "publish", ID, "--signer", "secp256k1", "--no-tunnel")
    assert (edited.returncode, "changed after it was signed" in edited.stderr) == (1, True)
    assert running(home) == []


#: Says what the real one says, then passes connections through for nobody, until it is told to end.
CLOUDFLARED = f"""#!{sys.executable}
import os, signal, sys, time
assert sys.argv[1:4] == ["tunnel", "--no-autoupdate", "--url"], sys.argv
open(os.environ["FAKE_HOME"] + "/pid", "w").write(str(os.getpid()))
open(os.environ["FAKE_HOME"] + "/url", "w").write(sys.argv[4])
print("this goes to stdout", flush=True)
say = lambda line: print("2026-11-22T05:00:00Z " + line, file=sys.stderr, flush=True)
say("INF Thank you for trying Cloudflare Tunnel. Doing so, without a Cloudflare account, is a quick way to")
say("INF Requesting new quick Tunnel on trycloudflare.com...")
if os.environ.get("FAKE_FAILS"):
    say('ERR failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": dial tcp: no route')
    sys.exit(1)
say("INF +" + "-" * 92 + "+")
say("INF |  Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):  |")
say("INF |  https://seasonal-deck-organisms-sf.trycloudflare.com" + " " * 39 + "|")
say("INF +" + "-" * 92 + "+")
say("INF " + "x" * 100_000)
while True:
    say("INF Registered tunnel connection connIndex=0 protocol=quic")
    time.sleep(0.2)
"""


@pytest.fixture
def cloudflared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a cloudflared on it."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "cloudflared").write_text(CLOUDFLARED)
    (directory / "cloudflared").chmod(0o755)
    monkeypatch.setenv("FAKE_HOME", str(directory))
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


def has_ended(pid: int) -> bool:
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_tunnel_is_opened_watched_and_never_left_behind(home: Path, cloudflared: Path) -> None:
    public = "https://seasonal-deck-organisms-sf.trycloudflare.com"
    with publishing(home) as server:
        assert server.told["public_url"] == public
        assert (cloudflared / "url").read_text() == server.url
        assert running(home)[0].public_url == public
        with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
            for number in range(30):  # as many as one address may not ask for: they come from several
                reply = client.post("/auth/device/code", headers={"CF-Connecting-IP": f"203.0.113.{number}"})
                assert reply.status_code == 200
        pid = int((cloudflared / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        line = server.until_said("the tunnel is gone")
        assert "only this machine can reach the server" in line
        assert running(home)[0].public_url is None
        assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
        assert server.stop() == 0
    for how in (signal.SIGTERM, signal.SIGKILL):
        with publishing(home, "--tunnel") as server:
            pid = int((cloudflared / "pid").read_text())
            server.stop(how)
            assert has_ended(pid)


def test_without_a_tunnel_that_is_needed_nothing_is_published(
    home: Path, cloudflared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS", "1")
    failed = run(home, "publish", ID, "--signer", "secp256k1", "--tunnel", path=os.environ["PATH"])
    assert failed.returncode == 1
    assert re.search(r"cloudflared ended with code 1: .* ERR failed to request quick Tunnel", failed.stderr)
    assert running(home) == []
    with publishing(home, path=os.environ["PATH"]) as server:
        assert server.told["public_url"] is None
        server.until_said("only this machine can reach the server")


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for another name than 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "data.example")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("data.example"), x509.IPAddress(ip_address("127.0.0.2"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem, secret = directory / "cert.pem", directory / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, secret


def test_with_tls_others_connect_and_approve_trusts_its_own_server_only(home: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    options = ("--host", "0.0.0.0", "--tls-cert", str(certificate), "--tls-key", str(key))
    with publishing(home, *options) as server:
        assert server.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(certificate))
        url = server.url.replace("127.0.0.1", "127.0.0.2")
        with httpx.Client(base_url=url, verify=trusting, trust_env=False, timeout=20) as client:
            code = join(client, "w")
            assert approve(home, code["user_code"])[0] == 0
            token = poll(client, code)["token"]
            reply = client.get(f"/dataset/{ID}/download", headers=auth(token) | {"Range": "bytes=7-"})
            assert (reply.status_code, reply.content) == (206, V1[7:])
            crowd = client.post("/auth/device/code", content=b"x" * 70_000)
            assert told(crowd) == (413, "too_large")
        with pytest.raises(httpx.ConnectError), httpx.Client(trust_env=False) as wary:
            wary.get(f"{server.url}/healthz")
        other = tmp_path / "other"
        other.mkdir()
        path = home / "serve" / f"{ID}.json"
        state = json.loads(path.read_text())
        path.write_text(json.dumps(state | {"certificate": make_certificate(other)[0].read_text()}))
        status, words = approve(home, "AAAA-AAAA")
        assert (status, "does not answer" in words) == (1, True)
        assert server.stop() == 0


async def test_no_member_is_lost_however_often_the_server_is_killed(home: Path) -> None:
    """Workers join at once while the server dies at some instant: who was told a token is a member."""
    chance = random.Random(11)
    granted: asyncio.Queue[str] = asyncio.Queue()

    async def worker(client: httpx.AsyncClient, number: int) -> None:
        code = (await client.post("/auth/device/code", json={"worker": f"w{number}"})).json()
        reply = await client.post("/auth/device/token", json={"device_code": code["device_code"]})
        token = reply.json()["token"]
        granted.put_nowait(token)
        await client.get(f"/dataset/{ID}/download", headers=auth(token))

    tokens: list[str] = []
    for enough in (1, 3, 6):
        with publishing(home, "--no-tunnel", "--membership", "open") as server:
            async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client:
                workers = [asyncio.create_task(worker(client, number)) for number in range(10)]
                tokens += [await asyncio.wait_for(granted.get(), 20) for _ in range(enough)]
                await asyncio.sleep(chance.uniform(0, 0.02))
                server.process.kill()
                await asyncio.gather(*workers, return_exceptions=True)
    tokens += [granted.get_nowait() for _ in range(granted.qsize())]
    with publishing(home, "--no-tunnel") as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client:
            for token in tokens:
                reply = await client.get(f"/dataset/{ID}/download", headers=auth(token))
                assert reply.content == V1


#: SHA-256 of 10 GiB of zeros.
ZEROS = bytes.fromhex("732377e7f4a2abdc13ddfa1eb4c9c497fd2a2b294674d056cf51581b47dd586d")
TEN_GIB = 10 << 30


def place_zeros(store: Store, signer: Signer) -> None:
    """Record 10 GiB of zeros as the next version, of which the disk keeps nothing: a sparse file."""
    leaf = hash_stream(io.BytesIO(bytes(CHUNK_SIZE)).read).leaves[0]
    digest = Digest(ZEROS, TEN_GIB, (leaf,) * (TEN_GIB // CHUNK_SIZE))
    path = store.artifacts.path(ZEROS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(TEN_GIB)
    path.with_name(f"{path.name}.chunks").write_bytes(b"".join(digest.leaves))
    files = (File("sft.jsonl", TEN_GIB, ZEROS),)
    bundle = Ingested(manifest_hash(files), files, "sft.jsonl", digest, path)
    store.append(ID, bundle, signer, 1_700_000_100)


def peak_memory(pid: int) -> int:
    """The most memory that a process has had so far, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def test_ten_gib_are_hashed_and_sent_with_flat_memory(hollow_home: Path) -> None:
    home = hollow_home
    with Store(home) as store:
        place_zeros(store, read_key(home / KEY_NAME))
    with publishing(home, "--no-tunnel") as server:
        before = peak_memory(server.process.pid)
        (state,) = running(home)
        request = f"GET /dataset/{ID}/download HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 60) as client:
            client.sendall(f"{request}Authorization: Bearer {state.owner_token}\r\n\r\n".encode())
            piece = memoryview(bytearray(1 << 20))
            received = 0
            while got := client.recv_into(piece):
                received += got
        assert TEN_GIB < received < TEN_GIB + 4096
        assert peak_memory(server.process.pid) - before < 32 << 20
        assert before < 400 << 20
        assert server.stop() == 0
    with Store(home) as store:  # a server that is hashing what was just put there ends at once all the same
        record(store, home.parent / "bundles", V2, signer=read_key(home / KEY_NAME))
    with publishing(home, "--no-tunnel") as server:
        assert server.stop() == 0
