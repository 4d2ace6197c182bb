"""A purchase that is interrupted anywhere, any number of times, charges once and ends with one token.

Buyer and seller are run step by step on their real databases; between any two steps everything but the
databases and the chain is thrown away, as by a power cut, and both begin anew. `pushed` money is sent by the
buyer (TAO), `pulled` money is taken by the seller (EIP-3009).
"""

import asyncio
import shutil
import sqlite3

import pytest
from dataset_payments import ID, NOW, Shop, make_journal
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorage.dataset.payments.errors import PaymentLost, PaymentRefused, TillAway
from tensorage.dataset.payments.paying import Shown, pay, resume
from tensorage.dataset.payments.reference import Claim, payment_id, sign_claim
from tensorage.dataset.payments.till import Presented, Settled
from tensorage.dataset.store import Store

PRICE = 1000
NETWORK = "bittensor:" + "00" * 32
SELLER = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
KINDS = ("pushed", "pulled")


class Cut(BaseException):
    """The power goes."""


class Steps:
    """Counts steps, and cuts the power at some."""

    def __init__(self, cuts):
        self.cuts, self.count = set(cuts), 0

    def __call__(self):
        self.count += 1
        if self.count in self.cuts:
            raise Cut


class Stepwise:
    """An object each of whose methods is a step, with a chance to be cut before and after."""

    def __init__(self, inner, step):
        self._inner, self._step = inner, step

    def __getattr__(self, name):
        method = getattr(self._inner, name)

        def stepped(*args, **kwargs):
            self._step()
            result = method(*args, **kwargs)
            self._step()
            return result

        return stepped


class Chain:
    """An account's nonces, and what moved money under each: the first that uses one."""

    def __init__(self):
        self.done = {}

    def include(self, nonce, reference):
        return self.done.setdefault(nonce, reference) == reference

    @property
    def money(self):
        return PRICE * len(self.done)


class Purse:
    """A wallet on the chain."""

    network, payer = NETWORK, "payer"

    def __init__(self, chain, step, kind):
        self.chain, self.step, self.kind = chain, step, kind

    async def sign(self, way, now):
        self.step()
        return {"nonce": len(self.chain.done)}

    async def send(self, way, signed):
        self.step()
        nonce = signed["nonce"]
        if self.kind == "pushed" and not self.chain.include(nonce, way.reference):
            raise PaymentLost("another took the nonce")
        self.step()
        claim = sign_claim(way.claim, way.offer_hash, nonce.to_bytes(8, "big"))
        return Shown({"nonce": nonce, **claim.json()}, f"nonce {nonce}")

    async def fate(self, way, signed, now):
        raise AssertionError("nothing is refused here")


class Counter:
    """A till on the chain. A settlement whose nonce is used says nothing of who used it."""

    network, asset, max_timeout = NETWORK, "TAO", 600

    def __init__(self, chain, step, kind):
        self.chain, self.step, self.kind = chain, step, kind

    def extra(self):
        return {"assetTransferMethod": "tao-remark"}

    def identify(self, payment, terms):
        place = payment.payload["nonce"].to_bytes(8, "big")
        claim = Claim.read(payment.payload["claimKey"], payment.payload["signature"])
        made = claim.check(terms.offer.hash, place)
        return Presented(payment_id(NETWORK, place), place, made, "payer", payment.payload["nonce"])

    async def check(self, shown, terms, now, *, begun):
        self.step()
        if self.chain.done.get(shown.detail) == shown.reference and (self.kind == "pushed" or begun):
            return self._settled(shown)
        if self.kind == "pushed":
            raise PaymentRefused("not_paid", "no")
        return None

    async def settle(self, shown, terms, *, begun):
        self.step()
        if shown.detail in self.chain.done:
            raise TillAway("used", reason="payment_unproved")
        self.chain.include(shown.detail, shown.reference)
        self.step()
        return self._settled(shown)

    def _settled(self, shown):
        return Settled(shown.payment_id, "payer", NETWORK, PRICE, f"tx {shown.detail}")


def buy(path, template, kind, cuts):
    """Buys through any number of cuts; the number of steps that there were."""
    shutil.copytree(template, path / "home")
    chain, step, saved = Chain(), Steps(cuts), {}

    async def once(shop, journal):
        purse = Purse(chain, step, kind)
        about = {"root_owner": "root", "id": ID, "version": 1}
        paid = await resume(purse, journal, **about, now=NOW)
        if paid is None:
            assert not saved, "what is bought is not bought again"
            paid = await pay(shop.choose(), purse, journal, root_owner="root", now=NOW)
        step()
        answer = await shop.join(paid.header)
        step()
        if answer.status != 200:
            return False
        saved["token"] = answer.body["token"]
        step()
        journal.claimed(paid.reference, NOW)
        return True

    for _ in range(len(cuts) + 1):
        shop = Shop.__new__(Shop)
        store = Store(path / "home" / "seller", clock=lambda: NOW)
        shop.now, shop.store = (lambda: NOW), Stepwise(store, step)
        shop.till, shop.amount, shop.pay_to = Counter(chain, step, kind), PRICE, SELLER
        shop.entry = lambda version=1, store=store: store.log(ID).entries[0].entry
        journal = make_journal(path / "buyer.sqlite")
        try:
            if "token" in saved and journal.open("root", ID, 1) is None:
                break
            if asyncio.run(once(shop, Stepwise(journal, step))):
                break
        except Cut:
            continue
        finally:
            journal._db.close()
            store.close()
    else:
        raise AssertionError("it never came to an end")
    store = Store(path / "home" / "seller", clock=lambda: NOW)
    try:
        store.check_token(saved["token"], ID, 1, NOW)
        assert len(store.members(ID)) == 1
        assert chain.money == PRICE
    finally:
        store.close()
    with sqlite3.connect(path / "buyer.sqlite") as db:
        states = [row[0] for row in db.execute("SELECT state FROM payments")]
    assert sorted(states)[0] == "claimed" and set(states[0:]) <= {"claimed", "lost"}
    return step.count


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template")
    shop = Shop(path, Counter(None, None, "pushed"), amount=PRICE, pay_to=SELLER)
    shop.store.close()
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_at_any_one_step_charges_once(tmp_path, template, kind):
    whole = tmp_path / "whole"
    whole.mkdir()
    steps = buy(whole, template, kind, ())
    assert steps > 15
    for cut in range(1, steps + 1):
        path = tmp_path / str(cut)
        path.mkdir()
        buy(path, template, kind, (cut,))


@settings(max_examples=25)
@given(st.sampled_from(KINDS), st.sets(st.integers(1, 60), min_size=2, max_size=6))
def test_cuts_at_any_steps_charge_once(tmp_path_factory, template, kind, cuts):
    buy(tmp_path_factory.mktemp("cuts"), template, kind, sorted(cuts))
