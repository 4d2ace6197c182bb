"""Processes to kill: a buyer that pays in TAO, and a seller's server that is paid on an EVM chain."""

import asyncio
import multiprocessing
import time
from pathlib import Path

from dataset_facilitator import NETWORK
from dataset_market import DORA, ID
from dataset_payments import make_journal

from tensorage.chain.coldkey import Coldkey
from tensorage.chain.network import ChainSettings
from tensorage.chain.transfers import Ledger
from tensorage.dataset.payments import models, policy
from tensorage.dataset.payments.evm import open_till
from tensorage.dataset.payments.paying import pay, resume
from tensorage.dataset.payments.tao import TaoWallet
from tensorage.dataset.sales import OfferTerms
from tensorage.dataset.server.context import Context
from tensorage.dataset.server.selling import Sale
from tensorage.dataset.server.service import Service
from tensorage.dataset.store import Store

OWNER = {"root_owner": "root", "id": ID, "version": 1}
SELLER = "0x" + "5e" * 20


def processes():
    """A context whose processes start quickly: they are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dataset_payers"])
    return context


def buyer(pipe, endpoint, path, price, challenge, entry):
    """Goes on with the payment that is in the journal, or makes one; sends the header."""

    async def run():
        async with Ledger(ChainSettings("finney", endpoint, 1)) as ledger:
            wallet = TaoWallet(ledger, Coldkey.from_uri("//Alice"), max_spend=price, patience=60)
            journal = make_journal(path)
            pipe.send("ready")
            paid = await resume(wallet, journal, **OWNER, now=int(time.time()))
            if paid is None:
                limits = policy.Limits(price, frozenset({wallet.network}), frozenset({"TAO"}))
                chosen = policy.choose(
                    models.read_challenge(challenge),
                    limits,
                    entry=entry,
                    owner=entry.owner,
                    now=int(time.time()),
                )
                paid = await pay(chosen, wallet, journal, root_owner="root", now=int(time.time()))
            pipe.send(paid.header)

    asyncio.run(run())


def seller(pipe, home, facilitator, rpc, price):
    """Serves the dataset in `home` for a price until it is killed; sends its port."""

    def clock():
        return int(time.time())

    async def run():
        with Store(Path(home)) as store:
            async with open_till(NETWORK, facilitator, rpc=rpc) as till:
                terms = OfferTerms(till.network, till.asset, price, "flat", SELLER)
                sale = Sale(store, till, terms, DORA, url=lambda: "http://127.0.0.1", clock=clock)
                context = Context(ID, store, DORA, "tensorage-owner-" + "0" * 48, "invite", clock, sale=sale)
                service = Service(context)
                await service.start()
                pipe.send(service.port)
                await asyncio.Event().wait()

    asyncio.run(run())
