"""Access sold for TAO on a devnet by a real server process, which is killed while it is being paid."""

import asyncio
import os
import random
import time
from pathlib import Path

import httpx
from chain_net import Net
from dataset_market import ID, Server, auth, record, told
from dataset_payments import make_journal, seeds

from tensorage.chain.coldkey import Coldkey
from tensorage.chain.transfers import Ledger
from tensorage.dataset import wire
from tensorage.dataset.payments.models import read_challenge
from tensorage.dataset.payments.paying import Paid, pay
from tensorage.dataset.payments.policy import Limits, choose
from tensorage.dataset.payments.tao import TaoWallet
from tensorage.dataset.signing import KEY_NAME, make_key, read_key
from tensorage.dataset.store import Store

ALICE, SELLER = (Coldkey.from_uri(uri) for uri in ("//Alice", "//Seller"))
DATA = b'{"sold":true}\n' * 1000
PATH = f"/dataset/{ID}/join/paid"


async def test_a_payment_buys_its_token_however_often_the_server_is_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Store(home) as store:
        make_key(home / KEY_NAME, os.urandom)
        record(store, tmp_path / "bundles", DATA, signer=read_key(home / KEY_NAME))
    chance = random.Random(5)
    async with Net(tmp_path / "devnet.sqlite").producing() as net, Ledger(net.settings) as ledger:
        options = ("--no-tunnel", "--price", "0.25", "--pay-to", SELLER.ss58)
        options += ("--subtensor.chain_endpoint", net.endpoint)
        paid: Paid | None = None
        tokens = set()
        delays = (0.0, chance.uniform(0, 0.05), chance.uniform(0.05, 0.3), None)
        for delay in delays:
            server = await asyncio.to_thread(Server, home, *options)
            try:
                async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
                    paid = paid or await bought(client, ledger, tmp_path)
                    joining = asyncio.create_task(client.post(PATH, headers={"X-PAYMENT": paid.header}))
                    if delay is not None:
                        await asyncio.sleep(delay)
                        server.process.kill()
                    (answer,) = await asyncio.gather(joining, return_exceptions=True)
                    if isinstance(answer, httpx.Response):
                        assert (answer.status_code, answer.json()["version"]) == (200, 1)
                        tokens.add(answer.json()["token"])
                    if delay is None:
                        (token,) = tokens
                        reply = await client.get(f"/dataset/{ID}/download", headers=auth(token))
                        assert reply.content == DATA
                        assert told(await client.post(f"{PATH}?version=2")) == (400, "unknown_version")
            finally:
                await asyncio.to_thread(server.stop, 9)
        assert await ledger.balance(SELLER.ss58) == 250_000_000
    with Store(home) as store:
        assert [(member.label, member.paid) for member in store.members(ID)] == [("paid", 250_000_000)]


async def bought(client: httpx.AsyncClient, ledger: Ledger, directory: Path) -> Paid:
    """Pay what the server asks, as a buyer does: see the log, choose, transfer, wait until it is final."""
    log, _ = wire.read_log((await client.get(f"/dataset/{ID}/versions")).content)
    asked = await client.post(PATH)
    assert asked.status_code == 402
    limits = Limits(250_000_000, frozenset({asked.json()["accepts"][0]["network"]}), frozenset({"TAO"}))
    now = int(time.time())
    chosen = choose(read_challenge(asked.content), limits, entry=log.at(1).entry, owner=log.owner, now=now)
    wallet = TaoWallet(ledger, ALICE, max_spend=250_000_000, patience=60.0)
    journal = make_journal(directory / "buyer.sqlite")
    return await pay(chosen, wallet, journal, root_owner=log.root_owner, now=now, rng=seeds())
