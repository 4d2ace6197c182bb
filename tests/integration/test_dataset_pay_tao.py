"""Paying for a dataset in TAO, on a devnet: a transfer through the SDK, finalized, checked by the seller."""

import asyncio
import base64
import json
import time
from dataclasses import replace

import pytest
from bittensor import Client, calls
from chain_net import Faults, Net, eventually
from dataset_payments import ID, Shop, make_journal, seeds

from tensorage import keyauth
from tensorage.chain.coldkey import Coldkey
from tensorage.chain.devnet import open_substrate
from tensorage.chain.transfers import Ledger, remark_hash
from tensorage.dataset.payments.errors import PaymentLost, PaymentUndecided, PolicyRefusal
from tensorage.dataset.payments.paying import pay, refused, resume
from tensorage.dataset.payments.reference import reference, sign_claim
from tensorage.dataset.payments.tao import TaoTill, TaoWallet
from tensorage.errors import UsageError

ALICE, SELLER, EVE = (Coldkey.from_uri(uri) for uri in ("//Alice", "//Seller", "//Eve"))
PRICE = 250_000_000
OWNER = {"root_owner": "root", "id": ID, "version": 1}


class World:
    """A devnet that makes blocks, a shop that takes TAO, and a buyer with a coldkey."""

    def __init__(self, net, path, seller_ledger, buyer_ledger):
        self.net, self.path = net, path
        path.mkdir(exist_ok=True)
        self.ledger, self.buyer = seller_ledger, buyer_ledger
        self.shop = Shop(path, TaoTill(seller_ledger), amount=PRICE, pay_to=SELLER.ss58, now=time.time)
        self.journal = make_journal(path / "buyer.sqlite")
        self.rng = seeds(str(path))

    def wallet(self, ledger=None, **options):
        options = {"max_spend": PRICE, "patience": 60.0, **options}
        return TaoWallet(ledger or self.buyer, ALICE, **options)

    async def pay(self, version=1, *, wallet=None, offer=None, journal=None):
        return await pay(
            self.shop.choose(version, offer),
            wallet or self.wallet(),
            journal or self.journal,
            root_owner="root",
            now=int(time.time()),
            rng=self.rng,
        )

    async def earned(self):
        return await self.ledger.balance(SELLER.ss58)

    async def send(self, *parts, key=ALICE, batch=calls.Utility.batch_all):
        """Puts calls into one extrinsic, and waits until it is final: (block hash, index)."""
        async with Client("local", substrate=open_substrate(self.net.endpoint)) as client:
            inner = [await client.compose(part) for part in parts]
            done = await client.submit_call(batch(calls=inner), key.keypair)
        return bytes.fromhex(done.block_hash[2:]), int(done.extrinsic_id.rpartition("-")[2])

    def header(self, offer, place, claim=None, *, accepted=None, **changes):
        """A payment made by hand for an extrinsic at `place`."""
        claim = claim or keyauth.SigningKey(bytes(32))
        block, index = place
        stated = sign_claim(claim, offer.offer.hash, block + index.to_bytes(4, "big"))
        payload = {"blockHash": block.hex(), "extrinsicIndex": index, **stated.json(), **changes}
        chosen = accepted or self.shop.challenge(offer.offer.version, offer).accepts[0].model_dump()
        document = {"x402Version": 2, "accepted": chosen, "payload": payload}
        return base64.b64encode(json.dumps(document).encode()).decode()


def transfer(amount=PRICE, dest=SELLER):
    return calls.Balances.transfer_keep_alive(dest.ss58, amount)


def remark(offer, claim=None):
    claim = claim or keyauth.SigningKey(bytes(32))
    return calls.System.remark_with_event(remark=reference(offer.offer.hash, claim.public_key))


@pytest.fixture
async def world(tmp_path):
    async with (
        Net(tmp_path / "devnet.sqlite").producing() as net,
        Ledger(net.settings) as seller,
        Ledger(net.settings) as buyer,
    ):
        yield World(net, tmp_path, seller, buyer)


async def test_a_payment_buys_one_token_and_shown_again_the_same_one(world):
    asked = await world.shop.join(None)
    assert asked.status == 402 and "PAYMENT-REQUIRED" in asked.headers
    paid = await world.pay()
    answer = await world.shop.join(paid.header)
    assert answer.status == 200 and answer.body["version"] == 1
    assert json.loads(base64.b64decode(answer.headers["X-PAYMENT-RESPONSE"]))["payer"] == ALICE.ss58
    again = await asyncio.gather(*(world.shop.join(paid.header) for _ in range(5)))
    assert {entry.body["token"] for entry in again} == {answer.body["token"]}
    assert world.shop.tokens() == 1
    assert await world.earned() == PRICE
    resumed = await resume(world.wallet(), world.journal, **OWNER, now=1)
    assert resumed.header == paid.header
    world.journal.claimed(paid.reference, 2)
    assert await resume(world.wallet(), world.journal, **OWNER, now=3) is None


async def test_one_extrinsic_with_two_references_buys_from_neither_of_two_stores(world, tmp_path):
    """A payee that sells from two stores: neither sees what the other has been paid with."""
    elsewhere = World(world.net, tmp_path / "other", world.ledger, world.buyer)
    first, second = world.shop.offer(1), elsewhere.shop.offer(2)
    other = keyauth.SigningKey(bytes([7] * 32))
    place = await world.send(transfer(), remark(first), remark(second, other))
    for shop, version, offer, key in ((world.shop, 1, first, None), (elsewhere.shop, 2, second, other)):
        answer = await shop.join(world.header(offer, place, key), version, offer=offer)
        assert (answer.status, answer.body["error"]) == (402, "not_paid")
        assert "more than one remark" in answer.body["message"] and shop.tokens() == 0
    place = await world.send(transfer(), remark(first))
    assert (await world.shop.join(world.header(first, place), offer=first)).status == 200
    answer = await world.shop.join(world.header(second, place, other), 2, offer=second)
    assert answer.status == 402 and world.shop.tokens() == 1


async def test_who_only_watches_the_chain_cannot_claim(world):
    offer = world.shop.offer()
    place = await world.send(transfer(), remark(offer))
    eve = keyauth.SigningKey(bytes([9] * 32))
    answer = await world.shop.join(world.header(offer, place, eve), offer=offer)
    assert (answer.status, answer.body["error"]) == (402, "not_paid")
    mine = world.header(offer, place)
    document = json.loads(base64.b64decode(mine))
    for name, value in {
        "claimKey": eve.public_key.hex(),
        "signature": "00" * 64,
        "extrinsicIndex": 0,
    }.items():
        forged = {**document, "payload": {**document["payload"], name: value}}
        header = base64.b64encode(json.dumps(forged).encode()).decode()
        answer = await world.shop.join(header, offer=offer)
        assert (answer.status, answer.body["error"]) == (402, "bad_claim"), name
    assert (await world.shop.join(mine, offer=offer)).status == 200
    answer = await world.shop.join(world.header(offer, place, eve), offer=offer)
    assert (answer.status, answer.body["error"]) == (402, "payment_spent"), "nor after the payer has claimed"
    other = world.shop.offer(expires=offer.offer.expires + 1)
    answer = await world.shop.join(world.header(other, place), offer=offer)
    assert answer.status == 402 and world.shop.tokens() == 1


async def test_what_is_not_a_payment_for_this_offer_buys_nothing(world):
    offer = world.shop.offer()
    force = calls.Utility.force_batch
    await world.send(transfer(3 * 10**9, EVE))
    cases = {
        "too_little": await world.send(transfer(PRICE - 1), remark(offer)),
        "wrong_payee": await world.send(transfer(dest=EVE), remark(offer)),
        "not_paid": await world.send(transfer(), remark(world.shop.offer(2))),
        "failed": await world.send(transfer(10**18), remark(offer)),
    }
    for reason, place in cases.items():
        answer = await world.shop.join(world.header(offer, place), offer=offer)
        assert (answer.status, answer.body["error"]) == (402, reason)
        assert answer.body["accepts"], "a refusal says how to pay"
    # A transfer that failed inside a batch that goes on has no event, and so no money.
    place = await world.send(transfer(10**18), remark(offer), batch=force)
    answer = await world.shop.join(world.header(offer, place), offer=offer)
    assert answer.body["error"] == "wrong_payee"
    # The money of another extrinsic in the same block does not count.
    late = world.shop.offer(expires=int(time.time()) - 7200)
    place = await world.send(transfer(), remark(late))
    answer = await world.shop.join(world.header(late, place), offer=late)
    assert answer.body["error"] == "too_late"
    assert world.shop.tokens() == 0


async def test_a_block_that_is_not_final_or_not_there_decides_nothing(world, tmp_path):
    offer = world.shop.offer()
    answer = await world.shop.join(world.header(offer, (b"\1" * 32, 1)), offer=offer)
    assert (answer.status, answer.body["error"]) == (503, "payment_not_final")
    assert int(answer.headers["Retry-After"]) >= 1
    async with (
        Net(tmp_path / "slow.sqlite", finality_lag=50).producing() as slow,
        Ledger(slow.settings) as ledger,
    ):
        there = World(slow, tmp_path / "slow", ledger, ledger)
        offer = there.shop.offer()
        async with Client("local", substrate=open_substrate(slow.endpoint)) as client:
            inner = [await client.compose(part) for part in (transfer(), remark(offer))]
            done = await client.submit_call(
                calls.Utility.batch_all(calls=inner), ALICE.keypair, wait_for_finalization=False
            )
        place = bytes.fromhex(done.block_hash[2:]), int(done.extrinsic_id.rpartition("-")[2])
        header = there.header(offer, place)
        assert (await there.shop.join(header, offer=offer)).body["error"] == "payment_not_final"
        assert there.shop.tokens() == 0

        async def accepted():
            return (await there.shop.join(header, offer=offer)).status == 200

        await eventually(accepted)


async def test_a_payment_on_another_chain_of_the_same_kind_is_not_one_here(world, tmp_path):
    async with (
        Net(tmp_path / "other.sqlite", seed="other").producing() as other,
        Ledger(other.settings) as ledger,
    ):
        foreign = TaoTill(ledger)
        assert foreign.network != world.shop.till.network
        with pytest.raises(PolicyRefusal) as error:
            await TaoWallet(ledger, ALICE, max_spend=PRICE).sign(_way(world.shop.choose()), int(time.time()))
        assert error.value.reason == "other_asset"
        offer = world.shop.offer(network=foreign.network)
        answer = await world.shop.join(world.header(offer, (b"\1" * 32, 1)))
        assert (answer.status, answer.body["error"]) == (402, "other_offer")


def _way(chosen):
    from tensorage.dataset.payments.paying import Way

    key = keyauth.SigningKey(bytes(32))
    offer = chosen.signed.offer
    return Way(chosen.requirement, offer.hash, offer.expires, key, reference(offer.hash, key.public_key))


async def test_an_offer_counts_after_a_newer_one_and_only_if_the_owner_signed_it(world):
    cheap = world.shop.offer(amount=PRICE // 2)
    paid = await world.pay(offer=cheap)
    world.shop.amount = PRICE * 4
    assert (await world.shop.join(paid.header)).status == 200
    document = json.loads(base64.b64decode(paid.header))
    for change in ({"amount": str(PRICE // 4)}, {"payTo": EVE.ss58}, {"signature": "00" * 64}):
        offer = {**document["accepted"]["extra"]["offer"], **change}
        accepted = {
            **document["accepted"],
            **{name: offer[name] for name in ("amount", "payTo")},
            "extra": {**document["accepted"]["extra"], "offer": offer},
        }
        header = base64.b64encode(json.dumps({**document, "accepted": accepted}).encode()).decode()
        answer = await world.shop.join(header)
        assert (answer.status, answer.body["error"]) == (402, "other_offer"), change
    for change in ({"amount": "1"}, {"payTo": EVE.ss58}, {"asset": "XTAO"}, {"scheme": "upto"}):
        altered = {**document, "accepted": {**document["accepted"], **change}}
        header = base64.b64encode(json.dumps(altered).encode()).decode()
        assert (await world.shop.join(header)).status == 402, change
    assert (await world.shop.join(paid.header, 2)).body["error"] == "other_offer"


async def test_an_offer_by_a_key_that_was_rotated_away_counts_for_payments_made_before(world):
    paid = await world.pay()
    owner = world.shop.offer().offer.owner
    until = int(time.time())
    assert (await world.shop.join(paid.header, owners={owner: until - 60})).body["error"] == "too_late"
    assert (await world.shop.join(paid.header, owners={})).body["error"] == "other_offer"
    assert (await world.shop.join(paid.header, owners={owner: until})).status == 200


async def test_nothing_is_signed_beyond_the_limits_of_the_wallet_the_balance_or_the_time(world):
    now = int(time.time())
    with pytest.raises(PolicyRefusal, match="max_spend"):
        await world.pay(wallet=world.wallet(max_spend=PRICE - 1))
    poor = TaoWallet(world.buyer, Coldkey.from_uri("//Poor"), max_spend=PRICE)
    with pytest.raises(PolicyRefusal, match="has 0 TAO"):
        await world.pay(wallet=poor)
    with pytest.raises(PolicyRefusal, match="are left"):
        await world.wallet().sign(_way(world.shop.choose()), now + 3590)
    assert await resume(world.wallet(), world.journal, **OWNER, now=now) is None
    assert await world.earned() == 0


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_connection_that_breaks_as_the_payment_leaves_charges_once(world, fault):
    """The journal has the signed bytes; the next run finds them on chain, or sends the same again."""

    class Breaks(Ledger):
        async def submit(self, payment, key):
            if fault == "after":
                await super().submit(payment, key)
            raise asyncio.CancelledError

    async with Breaks(world.net.settings) as broken:
        with pytest.raises(asyncio.CancelledError):
            await world.pay(wallet=world.wallet(broken))
    with pytest.raises(PaymentUndecided):
        await world.pay()
    paid = await resume(world.wallet(), world.journal, **OWNER, now=1)
    assert (await world.shop.join(paid.header)).status == 200
    assert await world.earned() == PRICE


async def test_a_chain_that_is_away_leaves_the_payment_undecided_until_it_is_back(world):
    faults = Faults()

    class Goes(Ledger):
        async def submit(self, payment, key):
            faults.away = True
            return await super().submit(payment, key)

    async with Goes(world.net.settings, opener=faults.open) as ledger:
        with pytest.raises(PaymentUndecided, match="does not pay twice"):
            await world.pay(wallet=world.wallet(ledger))
        faults.away = False
    paid = await resume(world.wallet(), world.journal, **OWNER, now=1)
    assert (await world.shop.join(paid.header)).status == 200
    assert await world.earned() == PRICE


async def test_a_payment_whose_nonce_was_used_up_is_lost_and_a_new_one_may_begin(world):
    class Races(Ledger):
        async def submit(self, payment, key):
            await world.send(transfer(1000, EVE))  # by the same coldkey, with the same nonce
            return await super().submit(payment, key)

    async with Races(world.net.settings) as ledger:
        with pytest.raises(PaymentLost):
            await world.pay(wallet=world.wallet(ledger))
    assert await resume(world.wallet(), world.journal, **OWNER, now=1) is None
    paid = await world.pay()
    assert (await world.shop.join(paid.header)).status == 200
    assert await world.earned() == PRICE


async def test_a_payment_that_is_not_there_when_its_era_is_final_never_can_be(world):
    options = {"max_spend": 1000, "max_seconds": 3600}
    with pytest.raises(UsageError, match="would not exist"):
        await world.buyer.sign(ALICE, EVE.ss58, 499, b"reference", **options)
    payment = await world.buyer.sign(ALICE, EVE.ss58, 1000, b"reference", **options)
    found, looked, never = await world.buyer.find(payment, payment.start)
    assert found is None and not never
    final = (await world.buyer.finalized()).number
    over = replace(payment, expires=final)
    assert await world.buyer.find(over, payment.start) == (None, final, True)
    assert payment.expires - payment.start >= 120 / world.buyer.block_time > 1000, (
        "longer than the chain takes it"
    )
    assert await world.buyer.submit(payment, ALICE) is None
    assert await world.buyer.submit(payment, ALICE) is None, "what waits already is not refused"

    async def landed():
        nonlocal found, looked
        found, looked, never = await world.buyer.find(payment, looked)
        assert not never
        return found is not None

    await eventually(landed)
    assert found.succeeded and found.transfers[0].amount == 1000
    assert "Stale" in await world.buyer.submit(payment, ALICE)


async def test_a_seller_that_refuses_a_payment_that_was_made_is_never_paid_again(world):
    paid = await world.pay()
    with pytest.raises(PaymentUndecided, match=f"the money went to {SELLER.ss58}"):
        await refused(world.wallet(), world.journal, paid, 1, "not_paid")
    with pytest.raises(PaymentUndecided):
        await world.pay()


async def test_the_devnet_tells_a_remark_by_its_hash_and_to_which_extrinsic_an_event_belongs(world):
    place = await world.send(transfer(1000, EVE), calls.System.remark_with_event(remark=b"hello"))
    found = None

    async def final():
        nonlocal found
        found = await world.ledger.extrinsic(*place)
        return found is not None

    await eventually(final)
    assert [(t.sender, t.dest, t.amount) for t in found.transfers] == [(ALICE.ss58, EVE.ss58, 1000)]
    assert [(r.sender, r.hash) for r in found.remarks] == [(ALICE.ss58, remark_hash(b"hello"))]
    assert found.succeeded and abs(found.time - time.time()) < 60
    nothing = await world.ledger.extrinsic(place[0], 99)
    assert not nothing.succeeded and not nothing.transfers
