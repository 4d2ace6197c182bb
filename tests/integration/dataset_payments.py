"""A dataset for sale and a buyer with a journal, for tests: a real store, real signatures, no HTTP."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from dataset_market import DORA, record

from tensorage import sqlite
from tensorage.dataset.entry import Offer, SignedOffer
from tensorage.dataset.payments import journal as journals
from tensorage.dataset.payments import models, policy
from tensorage.dataset.payments.join import JoinAnswer, challenge, join_paid
from tensorage.dataset.payments.till import Till
from tensorage.dataset.store import Store

ID = "sft-demo"
NOW = 1_760_000_000


class Shop:
    """The seller: version `VERSION` of its dataset for a price, at a till."""

    def __init__(self, home: Path, till: Till, *, amount: int, pay_to: str, now=lambda: NOW) -> None:
        self.now = now
        self.till = till
        self.store = Store(home / "seller", clock=lambda: int(now()))
        self.bundles = home / "bundles"
        for number in (1, 2):
            record(self.store, self.bundles, b'{"text": "row"}\n' * number)
        self.amount, self.pay_to = amount, pay_to

    def entry(self, version: int = 1, id: str = ID):
        return self.store.log(id).entries[version - 1].entry

    def offer(self, version: int = 1, *, signer=DORA, **changes) -> SignedOffer:
        plain = Offer(
            ID,
            signer.owner,
            version,
            self.till.network,
            self.till.asset,
            self.amount,
            self.pay_to,
            int(self.now()) + 3600,
        )
        offer = replace(plain, **changes)
        return SignedOffer(offer, signer.sign(offer.hash))

    async def join(self, header: str | None, version: int = 1, *, offer=None, **more) -> JoinAnswer:
        return await join_paid(
            self.store,
            self.till,
            offer or self.offer(version),
            header,
            ID,
            version,
            int(self.now()),
            entry=self.entry(version),
            **more,
        )

    def challenge(self, version: int = 1, offer=None) -> models.Challenge:
        """What a buyer reads of a 402."""
        import json

        answer = challenge(self.till, offer or self.offer(version), self.entry(version))
        return models.read_challenge(json.dumps(answer.body).encode())

    def choose(self, version: int = 1, offer=None, **limits) -> policy.Chosen:
        return policy.choose(
            self.challenge(version, offer),
            self.limits(**limits),
            entry=self.entry(version),
            owner=DORA.owner,
            now=int(self.now()),
        )

    def limits(self, **changes) -> policy.Limits:
        plain = policy.Limits(self.amount, frozenset({self.till.network}), frozenset({self.till.asset}))
        return replace(plain, **changes)

    def tokens(self) -> int:
        return len(self.store.members(ID))


def make_journal(path: Path) -> journals.Journal:
    """A buyer's journal in a file."""
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    sqlite.prepare(db, path, (journals.MIGRATION,))
    return journals.Journal(db)


def seeds(text: str = "seed"):
    """Randomness that is the same every time."""
    count = iter(range(1 << 20))
    return lambda size: sha256(f"{text}{next(count)}".encode()).digest()[:size]
