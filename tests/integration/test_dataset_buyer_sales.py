"""Sales on real processes: `publish --price`, and `buy --join` that is killed on its way."""

import asyncio
import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from bittensor import Wallet
from bittensor.keyfiles import Keypair
from dataset_facilitator import NETWORK, facilitator
from dataset_market import record
from dataset_shop import Shop, made
from devnet_live import live
from eth_account import Account

from tensorage.chain.coldkey import Coldkey
from tensorage.chain.devnet.location import url
from tensorage.chain.network import ChainSettings
from tensorage.chain.transfers import Ledger
from tensorage.config import run
from tensorage.dataset.buyer.book import Book
from tensorage.dataset.buyer.buyer_commands import app
from tensorage.dataset.entry import HEAD_SECONDS, Offer, SignedOffer
from tensorage.dataset.identity import EthSigner
from tensorage.dataset.payments.evm import EvmTill
from tensorage.dataset.payments.evm_extra import usdc
from tensorage.dataset.payments.join import challenge
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
        write_key(path / "owner.key", "07" * 32)
        self.serve(*selling)

    def serve(self, *selling):
        key, home = self.path / "owner.key", self.path / "seller"
        command = ["publish", ID, "--json", "--signer", "secp256k1", "--key", key, "--home", home]
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
        code, _, err = bought(
            world.arguments("--join", "--chain", "base", "--key", key, "--max-price", 1_250_000)
        )
        assert code == 2 and "wants to be paid on eip155:84532, not on eip155:8453" in err, err
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


def test_a_seller_at_another_address_is_shown_the_old_payment_and_gives_the_token_for_it(tmp_path, bought):
    payee = "0x" + "5e" * 20
    key = write_key(tmp_path / "buyer.key", "0b" * 32)
    with facilitator(Account.from_key("0x" + "0b" * 32).address) as server:
        money = ["--price", "1.25", "--pay-to", payee, "--facilitator", server.url]
        world = World(tmp_path, "--chain", "base-sepolia", *money)
        paying = ["--join", "--chain", "base-sepolia", "--key", key, "--max-price", 1_250_000]
        code, first, err = bought(world.arguments(*paying))
        assert code == 0, err
        old = world.url
        world.stop()
        world.serve("--chain", "base-sepolia", *money, "--no-tunnel")
        assert world.url != old
        code, second, err = bought(world.arguments(*paying, "--out", tmp_path / "copy"))
        assert code == 0 and "Showing that payment again" in err, err
        assert (tmp_path / "copy").read_bytes() == DATA
        assert json.loads(second)["payment"] == json.loads(first)["payment"]
        assert server.chain.balances[payee] == 1_250_000
        with Book(tmp_path / "buyer") as book:
            tokens = [book.tokens(place, ID) for place in (old, world.url)]
            assert [len(found) for found in tokens] == [1, 1] and tokens[0][0].token == tokens[1][0].token
        world.stop()


def test_a_seller_that_takes_a_payment_and_lets_nobody_in_has_one_until_told_to_pay_again(tmp_path, bought):
    key = write_key(tmp_path / "buyer.key", "0b" * 32)
    shown, gives = [], [200]
    with Shop(made(100_000)) as shop:
        till = EvmTill(NETWORK, usdc(NETWORK), "http://127.0.0.1:9/")

        async def join(asked, writer):
            if (header := asked.headers.get("x-payment")) is not None:
                shown.append(json.loads(base64.b64decode(header))["payload"]["authorization"]["nonce"])
                said = {"error": "bad_claim", "message": "not here"}
                granted = {"token": "tensorage-member-" + "6" * 64, "version": 1}
                await shop.say(writer, gives[0], granted if gives[0] == 200 else said)
                return
            expires = int(time.time()) + HEAD_SECONDS
            offer = Offer(shop.id, shop.owner, 1, NETWORK, till.asset, 10, "0x" + "5e" * 20, expires)
            signed = SignedOffer(offer, shop.signer.sign(offer.hash))
            await shop.say(writer, 402, challenge(till, signed, shop.signed[0].entry).body)

        async def refuse(asked, writer):
            await shop.say(writer, 403, {"error": "not_a_member", "message": "no"})

        shop.tricks = {f"/dataset/{shop.id}/join/paid": join, f"/dataset/{shop.id}/chunks": refuse}
        place = ["buy", shop.place, "--owner", shop.owner, "--home", tmp_path / "home"]
        paying = [*place, "--join", "--chain", "base-sepolia", "--key", key, "--max-price", 10]
        for status in (200, 200, 402, 403):
            gives[0] = status
            code, _, err = bought(paying)
            assert code == 1 and f"payment {paid(tmp_path)[0][:16]}" in err, err
            assert err.rstrip().endswith("Only --pay-again pays a second time"), err
        gives[0] = 200
        code, _, err = bought(place)
        assert code == 1 and "with --join" in err and "pays nothing" in err
        assert bought([*place, "--pay-again"])[0] == 2
        assert len(shown) == 4 and len(set(shown)) == 1

        with Shop(key=b"\1" * 32, log=shop.signed) as elsewhere:
            elsewhere.publish()
            elsewhere.tricks = shop.tricks
            code, _, err = bought(["buy", elsewhere.place, *paying[2:]])
            assert code == 1 and len(set(shown)) == 1
        assert bought([*paying, "--pay-again"])[0] == 1
        assert len(set(shown)) == 2 == len(paid(tmp_path))


def test_a_command_overtaken_by_another_that_buys_the_same_signs_nothing(tmp_path, bought):
    payee = "0x" + "5e" * 20
    key = write_key(tmp_path / "buyer.key", "0b" * 32)
    with facilitator(Account.from_key("0x" + "0b" * 32).address) as server:
        money = ["--price", "1.25", "--pay-to", payee, "--facilitator", server.url]
        world = World(tmp_path, "--chain", "base-sepolia", *money)
        paying = ["--join", "--chain", "base-sepolia", "--key", key, "--max-price", 1_250_000]
        with Store(tmp_path / "seller") as store, Shop(key=b"\7" * 32, id=ID) as slow:
            slow.signed = list(store.log(ID).entries)
            slow.publish()

            async def overtaken(asked, writer):
                def buy():
                    process = world.start(*world.arguments(*paying, "--out", tmp_path / "fast"))
                    return process.communicate(timeout=WAIT), process.returncode

                said, code = await asyncio.to_thread(buy)
                assert code == 0, said
                answer = await asyncio.to_thread(httpx.post, world.url + asked.target)
                await slow.answer(writer, answer.status_code, answer.content)

            slow.tricks[f"/dataset/{ID}/join/paid"] = overtaken
            code, _, err = bought(["buy", slow.place, *world.arguments(*paying)[2:]])
        assert code == 1 and "another command has paid meanwhile" in err, err
        assert server.chain.balances[payee] == 1_250_000
        with Book(tmp_path / "buyer") as book:
            assert sorted(row.state for row in book.journal.all()) == ["claimed", "lost"]
        world.stop()


def paid(path):
    """The references of all the payments, oldest first."""
    with Book(path / "home") as book:
        return [row.reference.hex() for row in book.journal.all()]
