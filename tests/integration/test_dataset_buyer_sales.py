"""Sales on real processes: `publish --price`, and `buy --join` that is killed on its way."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
from bittensor import Wallet
from bittensor.keyfiles import Keypair
from dataset_facilitator import facilitator
from dataset_market import record
from devnet_live import live
from eth_account import Account

from tensorage.chain.coldkey import Coldkey
from tensorage.chain.devnet.location import url
from tensorage.chain.network import ChainSettings
from tensorage.chain.transfers import Ledger
from tensorage.config import run
from tensorage.dataset.buyer.book import Book
from tensorage.dataset.buyer.buyer_commands import app
from tensorage.dataset.identity import EthSigner
from tensorage.dataset.store import Store

ID = "sft-demo"
OWNER = EthSigner(b"\7" * 32)
SELLER = Coldkey.from_uri("//Seller")
PRICE = 250_000_000
DATA = random.Random(3).randbytes(3 << 20)
WAIT = 60
ROOT = Path(__file__).parents[2]


class World:
    """A dataset for sale by a server in a process of its own, and a buyer."""

    def __init__(self, path, *selling):
        self.path = path
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.environment.pop("TENSORAGE_DATASET_TOKEN", None)
        with Store(path / "seller") as store:
            record(store, path / "bundles", DATA, signer=OWNER)
        key = write_key(path / "owner.key", "07" * 32)
        command = ["publish", ID, "--json", "--signer", "secp256k1", "--key", key, "--home", path / "seller"]
        self.server = self.start(*command, *selling)
        line = self.server.stdout.readline()
        assert line, self.server.stderr.read()
        self.url = json.loads(line)["local_addr"]

    def stop(self):
        self.server.send_signal(signal.SIGTERM)
        self.server.communicate(timeout=WAIT)

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "dataset", *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path,
        )

    def arguments(self, *more):
        place, home = f"{self.url}/dataset/{ID}", self.path / "buyer"
        return ["buy", place, "--owner", OWNER.owner, "--home", home, "--json", *more]


def write_key(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def earned(settings):
    async def balance():
        async with Ledger(settings) as ledger:
            return await ledger.balance(SELLER.ss58)

    return asyncio.run(balance())


@pytest.fixture
def bought(tmp_path, monkeypatch, capsys):
    """Runs `buy` in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(arguments):
        code = run(app, [str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def devnet(tmp_path, monkeypatch):
    """A devnet, a server that sells for TAO there, and a wallet that has some."""
    wallet = Wallet(name="buyer", path=str(tmp_path / "wallets"))
    wallet.coldkey_file.set_keypair(Keypair.create_from_uri("//Alice"), encrypt=False, overwrite=True)
    with live(tmp_path / "devnet.sqlite") as path:
        monkeypatch.setenv("BT_CHAIN_ENDPOINT", url(path))
        world = World(tmp_path, "--price", "0.25", "--pay-to", SELLER.ss58)
        world.settings = ChainSettings("finney", url(path), 1)
        yield world
        world.stop()


def test_a_buyer_killed_anywhere_on_its_way_pays_once_and_has_the_file(devnet, tmp_path, bought):
    wallet = ["--wallet.name", "buyer", "--wallet.path", tmp_path / "wallets"]
    paying = ["--join", "--max-price", PRICE, *wallet]

    before = earned(devnet.settings)
    for more, said in [
        (wallet, "no token"),
        (["--join", *wallet], "--max-price"),
        (["--join", "--max-price", PRICE - 1, *wallet], "more than the"),
        ([*paying, "--pay-to", Coldkey.from_uri("//Eve").ss58], "would go to"),
    ]:
        code, _, err = bought(devnet.arguments(*more))
        assert code == 2 and said in err
    with Book(tmp_path / "buyer") as book:
        assert book.journal.all() == []

    chance = random.Random(11)
    for _ in range(4):
        process = devnet.start(*devnet.arguments(*paying))
        process.stderr.readline()  # the buyer's wallet: what follows is the payment
        time.sleep(chance.random() * 0.6)
        process.kill()
        process.communicate(timeout=WAIT)
    code, out, err = bought(devnet.arguments(*paying))
    assert code == 0, err
    assert (tmp_path / f"{ID}-v1.jsonl").read_bytes() == DATA
    assert earned(devnet.settings) == before + PRICE
    with Store(tmp_path / "seller") as store, Book(tmp_path / "buyer") as book:
        assert len(store.members(ID)) == 1
        assert [row.state for row in book.journal.all() if row.state != "lost"] == ["claimed"]
        assert len(book.tokens(devnet.url, ID)) == 1
    paid = json.loads(out)["payment"]
    assert (paid["amount"], paid["payTo"], paid["asset"]) == (str(PRICE), SELLER.ss58, "TAO")

    (tmp_path / f"{ID}-v1.jsonl").unlink()
    code, _, err = bought(devnet.arguments(*paying))
    assert code == 0 and "Paying" not in err
    assert earned(devnet.settings) == before + PRICE


def test_a_dataset_is_paid_for_in_usdc(tmp_path, bought):
    secret = sha256(b"buyer").digest()
    payee = "0x" + "5e" * 20
    with facilitator(Account.from_key(secret).address) as server:
        world = World(
            tmp_path,
            *("--chain", "base-sepolia", "--price", "1.25", "--pay-to", payee, "--facilitator", server.url),
        )
        key = write_key(tmp_path / "buyer.key", "0x" + secret.hex() + "\n")
        paying = ["--join", "--chain", "base-sepolia", "--key", key]
        code, _, err = bought(world.arguments(*paying, "--max-price", 1_249_999))
        assert code == 2 and "more than the" in err
        key.chmod(0o644)
        code, _, err = bought(world.arguments(*paying, "--max-price", 1_250_000))
        assert code == 2 and "can be read by others" in err
        key.chmod(0o600)
        assert [path for path, _ in server.asked] == []
        code, out, err = bought(world.arguments(*paying, "--max-price", 1_250_000))
        assert code == 0, err
        assert (tmp_path / f"{ID}-v1.jsonl").read_bytes() == DATA
        assert server.chain.balances[payee] == 1_250_000
        assert json.loads(out)["payment"]["payer"] == Account.from_key(secret).address.lower()
        world.stop()
