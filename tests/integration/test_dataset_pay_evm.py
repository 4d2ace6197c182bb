"""Paying for a dataset by EIP-3009: the x402 package's types, client and facilitator, over loopback."""

import base64
import json
import time
from hashlib import sha256

import pytest
import x402.schemas as x402
from dataset_facilitator import (
    CHAIN_ID,
    NAME,
    NETWORK,
    TOKEN,
    TRANSFER,
    USED,
    VERSION,
    data,
    facilitator,
    word,
)
from dataset_payments import ID, Shop, make_journal, seeds
from eth_account import Account
from eth_account.messages import encode_typed_data

from tensorage.dataset.payments.errors import PaymentUndecided, PolicyRefusal
from tensorage.dataset.payments.evm import EvmTill
from tensorage.dataset.payments.evm_extra import Token, usdc
from tensorage.dataset.payments.evm_wallet import EvmWallet
from tensorage.dataset.payments.paying import pay, refused, resume
from tensorage.dataset.payments.policy import choose
from tensorage.errors import UsageError

SECRET = sha256(b"buyer").digest()
PAYER = Account.from_key(SECRET).address
SELLER = "0x" + "5e" * 20
PRICE = 1_250_000
OWNER = {"root_owner": "root", "id": ID, "version": 1}


class World:
    def __init__(self, server, path, till):
        self.server, self.till = server, till
        self.now = time.time()
        self.shop = Shop(path, till, amount=PRICE, pay_to=SELLER, now=lambda: int(self.now))
        self.journal = make_journal(path / "buyer.sqlite")
        self.wallet = EvmWallet(NETWORK, SECRET, rpc=server.rpc_url)
        self.rng = seeds(str(path))

    async def pay(self, version=1):
        chosen = self.shop.choose(version)
        return await pay(
            chosen, self.wallet, self.journal, root_owner="root", now=int(self.now), rng=self.rng
        )

    @property
    def earned(self):
        return self.server.chain.balances.get(SELLER, 0)

    def settled(self):
        return [path for path, _ in self.server.asked].count("settle")


@pytest.fixture
async def world(tmp_path):
    with facilitator(PAYER) as server:
        async with EvmTill(NETWORK, usdc(NETWORK), server.url, rpc=server.rpc_url) as till:
            yield World(server, tmp_path, till)


@pytest.fixture
async def blind(tmp_path):
    """A seller without a node to ask."""
    with facilitator(PAYER) as server:
        async with EvmTill(NETWORK, usdc(NETWORK), server.url) as till:
            yield World(server, tmp_path, till)


def opened(header):
    return json.loads(base64.b64decode(header))


def closed(document):
    return base64.b64encode(json.dumps(document).encode()).decode()


def altered(header, **changes):
    """The payment with other fields in its authorization."""
    document = opened(header)
    document["payload"]["authorization"].update(changes)
    return closed(document)


async def test_a_payment_is_settled_once_and_shown_again_gives_the_same_token(world):
    paid = await world.pay()
    answer = await world.shop.join(paid.header)
    assert answer.status == 200
    assert opened(answer.headers["PAYMENT-RESPONSE"])["transaction"].startswith("0x")
    again = await world.shop.join(paid.header)
    assert again.body == answer.body
    assert (world.earned, world.settled(), world.shop.tokens()) == (PRICE, 1, 1)
    sent = json.dumps([body for _, body in world.server.asked])
    assert "claimKey" not in sent, "the facilitator is not shown what would let it claim"


async def test_what_is_signed_is_what_the_token_verifies(world):
    """Numbers are decimal strings, V is 27 or 28, and the domain is the token's on this chain."""
    challenge = world.shop.challenge().accepts[0]
    assert (challenge.extra["name"], challenge.extra["version"]) == (NAME, VERSION)
    assert usdc("eip155:8453").name == "USD Coin" != NAME
    document = opened((await world.pay()).header)["payload"]
    authorization, signature = document["authorization"], bytes.fromhex(document["signature"][2:])
    assert signature[64] in (27, 28)
    for name in ("value", "validAfter", "validBefore"):
        assert isinstance(authorization[name], str) and authorization[name].isdecimal()
    assert int(authorization["validAfter"]) == int(world.now) - 300
    fields = ("from address", "to address", "value uint256", "validAfter uint256", "validBefore uint256")
    message = encode_typed_data(
        domain_data={
            "name": NAME,
            "version": VERSION,
            "chainId": CHAIN_ID,
            "verifyingContract": TOKEN,
        },
        message_types={
            "TransferWithAuthorization": [
                dict(zip(("name", "type"), field.split(), strict=True))
                for field in (*fields, "nonce bytes32")
            ]
        },
        message_data={
            **authorization,
            **{name: int(authorization[name]) for name in ("value", "validAfter", "validBefore")},
            "nonce": bytes.fromhex(authorization["nonce"][2:]),
        },
    )
    assert Account.recover_message(message, signature=signature) == PAYER


async def test_challenge_and_payment_are_what_the_x402_package_reads(world):
    asked = await world.shop.join(None)
    told = x402.PaymentRequired.model_validate(asked.body)
    assert told == x402.PaymentRequired.model_validate(opened(asked.headers["PAYMENT-REQUIRED"]))
    assert (told.x402_version, told.accepts[0].amount, told.accepts[0].pay_to) == (2, str(PRICE), SELLER)
    paid = await world.pay()
    read = x402.PaymentPayload.model_validate(opened(paid.header))
    assert read.accepted.extra["dataset"] == told.accepts[0].extra["dataset"]
    answer = await world.shop.join(paid.header)
    receipt = x402.SettleResponse.model_validate(opened(answer.headers["PAYMENT-RESPONSE"]))
    assert receipt.success and receipt.network == NETWORK and receipt.payer.lower() == PAYER.lower()


async def test_a_facilitator_that_is_down_decides_nothing(world):
    paid = await world.pay()
    world.server.verify_down = True
    assert (await world.shop.join(paid.header)).status == 503
    world.server.verify_down, world.server.settle_down = False, True
    answer = await world.shop.join(paid.header)
    assert (answer.status, answer.body["error"]) == (503, "till_away")
    assert (world.earned, world.shop.tokens()) == (0, 0)
    world.server.settle_down = False
    assert (await world.shop.join(paid.header)).status == 200
    assert world.earned == PRICE


async def test_a_settlement_that_the_facilitator_calls_failed_stays_undecided_and_can_be_made_good(world):
    paid = await world.pay()
    world.server.settle_rejects = "insufficient_funds"
    for _ in range(2):
        answer = await world.shop.join(paid.header)
        assert (answer.status, answer.body["error"]) == (503, "payment_unproved")
        assert "do not pay twice" in answer.body["message"]
    assert (world.earned, world.shop.tokens()) == (0, 0)
    assert [row.state for row in world.shop.store.payments(ID)] == ["begun"]
    world.server.settle_rejects = ""
    assert (await world.shop.join(paid.header)).status == 200
    assert (world.earned, world.shop.tokens()) == (PRICE, 1)


async def test_a_transaction_that_lands_after_the_facilitator_gave_it_up_buys_what_it_paid_for(world):
    """Its node timed out, and the transaction was in the mempool all the while."""
    paid = await world.pay()
    world.server.settle_rejects = "unexpected_settle_error"
    assert (await world.shop.join(paid.header)).status == 503
    world.server.chain.carry_out(opened(paid.header)["payload"])
    world.now += 4000  # the authorization and the offer are over
    answer = await world.shop.join(paid.header)
    assert answer.status == 200 and world.shop.tokens() == 1
    assert (await world.shop.join(paid.header)).body == answer.body
    assert (world.earned, world.settled()) == (PRICE, 1)


async def test_a_payment_that_was_made_in_time_counts_though_the_seller_first_sees_it_later(world):
    paid = await world.pay()
    world.server.chain.carry_out(opened(paid.header)["payload"])
    made = int(world.now)
    owner = world.shop.offer().offer.owner
    answer = await world.shop.join(paid.header, owners={owner: made - 60})
    assert (answer.status, answer.body["error"]) == (402, "too_late"), "the key was rotated away before"
    assert world.shop.tokens() == 0
    world.now += 4000
    world.server.rpc_down = True
    assert (await world.shop.join(paid.header)).body["error"] == "till_away"
    world.server.rpc_down = False
    assert (await world.shop.join(paid.header)).status == 200
    assert (world.earned, world.settled()) == (PRICE, 0)


async def test_a_settlement_is_given_up_only_when_a_deep_block_shows_it_unused_after_its_end(world):
    paid = await world.pay()
    world.server.settle_rejects = "unexpected_settle_error"
    end = int(opened(paid.header)["payload"]["authorization"]["validBefore"])
    for after, status, error, rows in (
        (-60, 503, "payment_unproved", 1),
        (2, 503, "payment_unproved", 1),  # the newest block only, and it may be replaced
        (60, 402, "too_late", 0),
    ):
        world.now = end + after
        world.server.chain.ahead = end + after - int(time.time())
        answer = await world.shop.join(paid.header)
        assert (answer.status, answer.body["error"]) == (status, error), after
        assert len(world.shop.store.payments(ID)) == rows, after
    assert (world.earned, world.shop.tokens()) == (0, 0)


async def test_an_answer_lost_after_settlement_is_made_good_by_asking_again(world):
    paid = await world.pay()
    world.server.lose = True
    answer = await world.shop.join(paid.header)
    assert answer.status == 503 and world.earned == PRICE and world.shop.tokens() == 0
    world.server.rpc_down = True
    assert (await world.shop.join(paid.header)).status == 503
    world.server.rpc_down = False
    answer = await world.shop.join(paid.header)
    assert answer.status == 200
    assert (await world.shop.join(paid.header)).body == answer.body
    assert (world.earned, world.shop.tokens()) == (PRICE, 1)


async def test_a_facilitator_alone_is_enough_to_be_paid(blind):
    paid = await blind.pay()
    answer = await blind.shop.join(paid.header)
    assert answer.status == 200 and (blind.earned, blind.settled()) == (PRICE, 1)
    assert opened(answer.headers["X-PAYMENT-RESPONSE"])["amount"] == str(PRICE)
    assert (await blind.shop.join(paid.header)).body == answer.body


async def test_a_failure_that_names_a_transaction_is_not_taken_for_no_payment(blind):
    paid = await blind.pay()
    blind.server.settle_doubts = True
    for _ in range(2):
        answer = await blind.shop.join(paid.header)
        assert (answer.status, answer.body["error"]) == (503, "payment_unproved")
    assert blind.earned == PRICE and blind.shop.tokens() == 0


async def test_without_a_node_to_ask_a_used_nonce_counts_as_neither_paid_nor_unpaid(blind):
    paid = await blind.pay()
    blind.server.lose = True
    assert (await blind.shop.join(paid.header)).status == 503
    blind.server.lose = False
    answer = await blind.shop.join(paid.header)
    assert (answer.status, answer.body["error"]) == (503, "payment_unproved")
    assert "do not pay twice" in answer.body["message"] and blind.shop.tokens() == 0
    async with EvmTill(
        NETWORK, usdc(NETWORK), blind.server.url, rpc=blind.server.rpc_url
    ) as seeing:  # the owner restarts with --rpc
        blind.shop.till = seeing
        assert (await blind.shop.join(paid.header)).status == 200


@pytest.mark.parametrize("trick", ["cancelled", "used for another payee", "beside another's transfer"])
@pytest.mark.parametrize("journaled", [True, False])
async def test_a_nonce_that_was_used_up_without_paying_buys_nothing(world, trick, journaled):
    paid = await world.pay()
    chain = world.server.chain
    nonce = bytes.fromhex(opened(paid.header)["payload"]["authorization"]["nonce"][2:])
    if journaled:
        world.server.settle_down = True
        assert (await world.shop.join(paid.header)).status == 503
        world.server.settle_down = False
    used = [chain_topics(nonce), "0x"]
    if trick == "cancelled":
        chain.cancel(PAYER, nonce)
    elif trick == "used for another payee":
        chain.used.add((PAYER.lower(), nonce.hex()))
        chain.mine([tuple(used), (transfer_topics("0x" + "66" * 20), data(PRICE))])
    else:  # the transfer is another authorization's, in the same transaction
        chain.used.add((PAYER.lower(), nonce.hex()))
        chain.mine(
            [
                tuple(used),
                (transfer_topics("0x" + "66" * 20), data(0)),
                (chain_topics(b"\7" * 32), "0x"),
                (transfer_topics(SELLER), data(PRICE)),
            ]
        )
    answer = await world.shop.join(paid.header)
    assert (answer.status, answer.body["error"]) == (402, "not_paid")
    assert world.shop.tokens() == 0


def chain_topics(nonce):
    return [USED, word(PAYER), f"0x{nonce.hex()}"]


def transfer_topics(payee):
    return [TRANSFER, word(PAYER), word(payee)]


async def test_a_settlement_that_is_not_deep_enough_is_waited_for(world):
    world.server.chain.depth = 0
    paid = await world.pay()
    world.server.lose = True
    assert (await world.shop.join(paid.header)).status == 503
    answer = await world.shop.join(paid.header)
    assert (answer.status, answer.body["error"]) == (503, "payment_not_final")
    world.server.chain.blocks.extend([[], []])
    assert (await world.shop.join(paid.header)).status == 200


async def test_who_sees_a_settled_payment_on_chain_cannot_claim_its_token(world):
    from tensorage import keyauth
    from tensorage.dataset.payments.reference import sign_claim

    paid = await world.pay()
    assert (await world.shop.join(paid.header)).status == 200
    document = opened(paid.header)
    eve = keyauth.SigningKey(bytes([9] * 32))
    place = bytes.fromhex(TOKEN[2:]) + bytes.fromhex(PAYER[2:])
    place += bytes.fromhex(document["payload"]["authorization"]["nonce"][2:])
    stolen = sign_claim(eve, world.shop.offer().offer.hash, place).json()
    for extensions in (
        None,
        {"claim": stolen},
        {"claim": {**stolen, "x": 1}},
        {"claim": {"claimKey": 1, "signature": 2}},
    ):
        answer = await world.shop.join(closed({**document, "extensions": extensions}))
        assert (answer.status, answer.body["error"]) == (402, "bad_claim")


async def test_a_payment_that_is_not_as_offered_never_reaches_the_facilitator(world):
    header = (await world.pay()).header
    cases = {
        "too_little": {"value": str(PRICE - 1)},
        "wrong_payee": {"to": "0x" + "66" * 20},
        "bad_payload": {"from": "0x" + "66" * 20},
        "bad_claim": None,
    }
    for reason, change in cases.items():
        wrong = altered(header, **change) if change else closed({**opened(header), "extensions": {}})
        answer = await world.shop.join(wrong)
        assert (answer.status, answer.body["error"]) == (402, reason)
    hostile = ("1e9", " 1", "-1", "0x10", "01", "", "9" * 40, True, 1, None, 1.5, ["1"], {"a": "1"})
    for name in ("value", "validAfter", "validBefore", "nonce", "from", "to"):
        for value in hostile:
            assert (await world.shop.join(altered(header, **{name: value}))).status == 402, (name, value)
    for signature in ("0x", "0x" + "00" * 65, opened(header)["payload"]["signature"][:-2] + "01", 5):
        document = opened(header)
        document["payload"]["signature"] = signature
        assert (await world.shop.join(closed(document))).status == 402
    assert world.server.asked == []
    assert (await world.shop.join(header, 2)).body["error"] == "other_offer"


async def test_an_authorization_out_of_its_time_or_an_ended_offer_is_refused(world):
    paid = await world.pay()
    world.now += 895
    assert (await world.shop.join(paid.header)).body["error"] == "too_late"
    world.now += 86_400
    assert (await world.shop.join(paid.header)).body["error"] == "offer_expired"
    assert world.server.asked == []


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\1" * 31])
def test_what_is_no_key_is_refused_without_showing_it(secret):
    with pytest.raises(UsageError, match="no secp256k1 key") as error:
        EvmWallet(NETWORK, secret)
    assert error.value.__cause__ is None and error.value.__suppress_context__


async def test_an_empty_purse_is_a_402(world):
    world.server.chain.balances[PAYER.lower()] = PRICE - 1
    answer = await world.shop.join((await world.pay()).header)
    assert (answer.status, answer.body["error"]) == (402, "verify_failed")
    assert "insufficient_balance" in answer.body["message"]


async def test_a_refused_payment_is_not_made_anew_until_the_chain_says_that_it_never_can_be(world):
    paid = await world.pay()
    now = int(world.now)
    with pytest.raises(PaymentUndecided, match="good for"):
        await refused(world.wallet, world.journal, paid, now, "settle_failed")
    with pytest.raises(PaymentUndecided):
        await world.pay()
    assert (await resume(world.wallet, world.journal, **OWNER, now=now)).header == paid.header
    later = now + 3700
    with pytest.raises(PaymentUndecided, match="no final block yet"):
        await refused(world.wallet, world.journal, paid, later, "too_late")
    with pytest.raises(PaymentUndecided, match="no node to ask"):
        await refused(EvmWallet(NETWORK, SECRET), world.journal, paid, later, "too_late")
    world.server.chain.ahead = 3700
    await refused(world.wallet, world.journal, paid, later, "too_late")
    assert await resume(world.wallet, world.journal, **OWNER, now=later) is None


async def test_a_buyer_takes_no_block_that_may_be_replaced_for_the_end_of_its_payment(world):
    """The newest block is after the end, and is replaced by one that holds the transfer."""
    paid = await world.pay()
    end = int(opened(paid.header)["payload"]["authorization"]["validBefore"])
    chain = world.server.chain
    chain.ahead = end + 2 - int(time.time())
    with pytest.raises(PaymentUndecided, match="no final block yet"):
        await refused(world.wallet, world.journal, paid, end + 2, "verify_failed")
    chain.ahead = 0
    chain.carry_out(opened(paid.header)["payload"])
    with pytest.raises(PaymentUndecided, match="the money went to"):
        await refused(world.wallet, world.journal, paid, end + 2, "verify_failed")
    with pytest.raises(PaymentUndecided):
        await world.pay()
    assert world.earned == PRICE


async def test_a_cancellation_that_may_be_replaced_ends_no_payment(world):
    paid = await world.pay()
    payment = opened(paid.header)["payload"]["authorization"]
    world.server.settle_down = True
    assert (await world.shop.join(paid.header)).status == 503
    chain = world.server.chain
    chain.depth = 0
    chain.cancel(PAYER, bytes.fromhex(payment["nonce"][2:]))
    assert (await world.shop.join(paid.header)).body["error"] == "payment_not_final"
    later = int(payment["validBefore"]) + 1
    with pytest.raises(PaymentUndecided, match="not final yet"):
        await refused(world.wallet, world.journal, paid, later, "not_paid")
    chain.blocks.extend([[], []])
    assert (await world.shop.join(paid.header)).body["error"] == "not_paid"
    await refused(world.wallet, world.journal, paid, later, "not_paid")
    assert await resume(world.wallet, world.journal, **OWNER, now=later) is None


async def test_money_that_went_is_never_paid_again_though_the_seller_refuses(world):
    paid = await world.pay()
    assert (await world.shop.join(paid.header)).status == 200
    with pytest.raises(PaymentUndecided, match="the money went to"):
        await refused(world.wallet, world.journal, paid, int(world.now) + 3700, "not_paid")


async def test_nothing_is_signed_for_a_token_that_does_not_say_how_it_signs(world):
    challenge = world.shop.challenge()
    for extra in ({"name": None}, {"version": 2}, {"assetTransferMethod": "permit2"}):
        way = challenge.accepts[0].model_copy(update={"extra": {**challenge.accepts[0].extra, **extra}})
        with pytest.raises(PolicyRefusal):
            await pay(
                choose(
                    challenge.model_copy(update={"accepts": [way]}),
                    world.shop.limits(),
                    entry=world.shop.entry(),
                    owner=world.shop.entry().owner,
                    now=int(world.now),
                ),
                world.wallet,
                world.journal,
                root_owner="root",
                now=int(world.now),
            )
    assert world.journal.open("root", ID, 1) is None
    assert Token(TOKEN, NAME, VERSION) == usdc(NETWORK)
