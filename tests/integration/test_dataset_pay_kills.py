"""Buyers and sellers that are killed at random instants: nothing is lost, and nothing charged twice."""

import asyncio
import json
import random
import time
from hashlib import sha256

import httpx
import pytest
from chain_net import Net
from dataset_facilitator import NETWORK, facilitator
from dataset_market import DORA, ID
from dataset_payers import SELLER, buyer, processes, seller
from dataset_payments import Shop, make_journal
from eth_account import Account

from tensorage.chain.coldkey import Coldkey
from tensorage.chain.transfers import Ledger
from tensorage.dataset.payments import models
from tensorage.dataset.payments.evm import open_till
from tensorage.dataset.payments.evm_wallet import EvmWallet
from tensorage.dataset.payments.join import challenge
from tensorage.dataset.payments.paying import pay
from tensorage.dataset.payments.policy import Limits, choose
from tensorage.dataset.payments.tao import TaoTill
from tensorage.dataset.store import Store

PRICE = 250_000_000


@pytest.mark.parametrize("seed", range(2))
async def test_a_buyer_that_is_killed_while_it_pays_is_charged_once(tmp_path, seed):
    chance = random.Random(seed)
    payee = Coldkey.from_uri("//Seller").ss58
    context = processes()
    async with (
        Net(tmp_path / "devnet.sqlite").producing() as net,
        Ledger(net.settings) as ledger,
    ):
        shop = Shop(tmp_path, TaoTill(ledger), amount=PRICE, pay_to=payee, now=time.time)
        body = json.dumps(challenge(shop.till, shop.offer(), shop.entry()).body).encode()
        arguments = (net.endpoint, tmp_path / "buyer.sqlite", PRICE, body, shop.entry())
        header, kills = None, 0
        while header is None:
            here, there = context.Pipe()
            process = context.Process(target=buyer, args=(there, *arguments))
            process.start()
            there.close()
            assert await asyncio.to_thread(here.poll, 60), "the buyer did not begin"
            assert here.recv() == "ready"
            if kills < 5:
                await asyncio.sleep(chance.uniform(0, 0.25))
                process.kill()
                kills += 1
            await asyncio.to_thread(process.join, 90)
            assert process.exitcode in (0, -9), process.exitcode
            header = _received(here)
        answer = await shop.join(header)
        assert answer.status == 200
        assert await ledger.balance(payee) == PRICE
        rows = make_journal(tmp_path / "buyer.sqlite").all()
        assert [row.state for row in rows].count("paid") == 1
        assert {row.state for row in rows} <= {"paid", "lost"}
        shop.store.close()


def _received(pipe):
    """What a process that has ended had to say; None if it was killed before."""
    try:
        return pipe.recv()
    except EOFError:
        return None


def send(port, header):
    """A paid join: (status, token)."""
    url = f"http://127.0.0.1:{port}/dataset/{ID}/join/paid?version=1"
    answer = httpx.post(url, headers={"PAYMENT-SIGNATURE": header}, timeout=60, trust_env=False)
    return answer.status_code, answer.json().get("token")


async def test_a_server_that_is_killed_while_it_is_paid_loses_no_token_and_charges_nobody_twice(tmp_path):
    """Each round, several buyers pay at once, and the server dies under them; then they ask again."""
    chance = random.Random(11)
    secrets = [sha256(f"buyer {number}".encode()).digest() for number in range(16)]
    addresses = [Account.from_key(secret).address for secret in secrets]
    context = processes()
    with facilitator(*addresses, hold=(0.04, 0.04)) as server:
        async with open_till(NETWORK, server.url, rpc=server.rpc_url) as till:
            shop = Shop(tmp_path, till, amount=1_250_000, pay_to=SELLER, now=time.time)
            headers = [await _pay(shop, secret, tmp_path / f"{n}.sqlite") for n, secret in enumerate(secrets)]
            shop.store.close()
        arguments = (str(tmp_path / "seller"), server.url, server.rpc_url, "1.25")
        tokens, early = {}, 0
        process, port = await _start(context, arguments)
        for first in range(0, len(headers), 4):
            group = headers[first : first + 4]
            asked = [asyncio.create_task(asyncio.to_thread(_try, port, header)) for header in group]
            await asyncio.sleep(chance.uniform(0.02, 0.35))
            process.kill()
            await asyncio.to_thread(process.join, 30)
            early_tokens = await asyncio.gather(*asked)
            process, port = await _start(context, arguments)
            for header, before in zip(group, early_tokens, strict=True):
                tokens[header] = await asyncio.to_thread(_until_paid, port, header)
                early += before is not None
                assert before in (None, tokens[header]), "asking again gives the same token"
        process.kill()
        await asyncio.to_thread(process.join, 30)
        chain = server.chain
        assert chain.balances[SELLER] == 1_250_000 * len(headers)
        assert [chain.balances[address.lower()] for address in addresses] == [10**12 - 1_250_000] * len(
            headers
        )
    assert len(set(tokens.values())) == len(headers)
    assert early < len(headers), "no kill came in between: nothing was tested"
    with Store(tmp_path / "seller") as store:
        assert len(store.members(ID)) == len(headers)
        for token in tokens.values():
            store.check_token(token, ID, 1, int(time.time()))


async def _pay(shop, secret, path):
    wallet = EvmWallet(NETWORK, secret)
    limits = Limits(shop.amount, frozenset({NETWORK}), frozenset({shop.till.asset}))
    now, entry = int(time.time()), shop.entry()
    body = json.dumps(challenge(shop.till, shop.offer(), entry).body).encode()
    chosen = choose(models.read_challenge(body), limits, entry=entry, owner=DORA.owner, now=now)
    paid = await pay(chosen, wallet, make_journal(path), root_owner="root", now=now)
    return paid.header


async def _start(context, arguments):
    here, there = context.Pipe()
    process = context.Process(target=seller, args=(there, *arguments))
    process.start()
    there.close()
    assert await asyncio.to_thread(here.poll, 60), "the server did not start"
    return process, here.recv()


def _try(port, header):
    """The token, if the answer came before the server died."""
    try:
        return send(port, header)[1]
    except httpx.HTTPError:
        return None


def _until_paid(port, header):
    deadline = time.monotonic() + 60
    while True:
        status, token = send(port, header)
        if status == 200:
            return token
        assert status == 503, status
        assert time.monotonic() < deadline
        time.sleep(0.05)
