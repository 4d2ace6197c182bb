"""A sale on real processes: a devnet, `publish --price`, and `buy --join` that is killed on its way."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bittensor import Wallet
from bittensor.keyfiles import Keypair
from dataset_market import record
from devnet_live import live

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


class World:
    """A devnet, a dataset for sale, and a buyer with TAO."""

    def __init__(self, path, endpoint):
        self.path, self.endpoint = path, endpoint
        self.settings = ChainSettings("finney", endpoint, 1)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(Path.cwd()),
            "BT_CHAIN_ENDPOINT": endpoint,
        }
        self.environment.pop("TENSORAGE_DATASET_TOKEN", None)
        with Store(path / "seller") as store:
            record(store, path / "bundles", DATA, signer=OWNER)
        key = path / "owner.key"
        key.write_text("07" * 32)
        key.chmod(0o600)
        wallet = Wallet(name="buyer", path=str(path / "wallets"))
        wallet.coldkey_file.set_keypair(Keypair.create_from_uri("//Alice"), encrypt=False, overwrite=True)
        command = ["publish", ID, "--json", "--signer", "secp256k1", "--key", key, "--home", path / "seller"]
        self.server = self.start(*command, "--price", "0.25", "--pay-to", SELLER.ss58)
        line = self.server.stdout.readline()
        assert line, self.server.stderr.read()
        self.url = json.loads(line)["local_addr"]

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
        wallet = ["--wallet.name", "buyer", "--wallet.path", self.path / "wallets"]
        place, home = f"{self.url}/dataset/{ID}", self.path / "buyer"
        return ["buy", place, "--owner", OWNER.owner, "--home", home, "--json", *wallet, *more]

    def buy(self, *more):
        """A buyer in a process of its own."""
        return self.start(*self.arguments(*more))

    def earned(self):
        async def balance():
            async with Ledger(self.settings) as ledger:
                return await ledger.balance(SELLER.ss58)

        return asyncio.run(balance())


@pytest.fixture
def world(tmp_path):
    with live(tmp_path / "devnet.sqlite") as path:
        world = World(tmp_path, url(path))
        yield world
        world.server.send_signal(signal.SIGTERM)
        world.server.communicate(timeout=WAIT)


def test_a_buyer_killed_anywhere_on_its_way_pays_once_and_has_the_file(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BT_CHAIN_ENDPOINT", world.endpoint)

    def bought(*more):
        code = run(app, [str(argument) for argument in world.arguments(*more)])
        said = capsys.readouterr()
        return code, said.out, said.err

    before = world.earned()
    eve = Coldkey.from_uri("//Eve").ss58
    for more, said in [
        ([], "no token"),
        (["--join"], "--max-price"),
        (["--join", "--max-price", PRICE - 1], "more than the"),
        (["--join", "--max-price", PRICE, "--pay-to", eve], "would go to"),
    ]:
        code, _, err = bought(*more)
        assert code == 2 and said in err
    with Book(tmp_path / "buyer") as book:
        assert book.journal.all() == []

    chance = random.Random(11)
    for _ in range(4):
        process = world.buy("--join", "--max-price", PRICE)
        process.stderr.readline()  # the buyer's wallet: what follows is the payment
        time.sleep(chance.random() * 0.6)
        process.kill()
        process.communicate(timeout=WAIT)
    code, out, err = bought("--join", "--max-price", PRICE)
    assert code == 0, err
    assert (tmp_path / f"{ID}-v1.jsonl").read_bytes() == DATA
    assert world.earned() == before + PRICE
    with Store(tmp_path / "seller") as store, Book(tmp_path / "buyer") as book:
        assert len(store.members(ID)) == 1
        assert [row.state for row in book.journal.all() if row.state != "lost"] == ["claimed"]
        assert len(book.tokens(world.url, ID)) == 1
    paid = json.loads(out)["payment"]
    assert (paid["amount"], paid["payTo"], paid["asset"]) == (str(PRICE), SELLER.ss58, "TAO")

    (tmp_path / f"{ID}-v1.jsonl").unlink()
    code, _, err = bought("--join", "--max-price", PRICE)
    assert code == 0 and "Paying" not in err
    assert world.earned() == before + PRICE
