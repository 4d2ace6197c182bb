"""Prices, the JSON of x402 read strictly, and what a buyer refuses to sign."""

import base64
import json
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import pytest
from dataset_logs import ALICE, BOB, DORA, NOW, append, make_log

from tensorage.chain.address import ss58
from tensorage.chain.transfers import Extrinsic, Remark, Transfer, remark_hash
from tensorage.chain.types import BlockRef
from tensorage.dataset.entry import Offer, SignedOffer
from tensorage.dataset.payments import models, pricing
from tensorage.dataset.payments.errors import MalformedPayment, PaymentRefused, PolicyRefusal
from tensorage.dataset.payments.join import requirement
from tensorage.dataset.payments.policy import Limits, choose
from tensorage.dataset.payments.reference import Claim, claim_hash, payment_id, reference, sign_claim
from tensorage.dataset.payments.tao import settled
from tensorage.dataset.payments.till import Presented, Terms
from tensorage.dataset.sales import OfferTerms
from tensorage.errors import UsageError
from tensorage.keyauth import SigningKey

GENESIS = "bittensor:" + "ab" * 32
PAYEE = ALICE.owner
ENTRY = append(make_log(), ALICE, size=3 << 20).head
OFFER = Offer(ENTRY.id, ALICE.owner, ENTRY.seq, GENESIS, "TAO", 5_000, PAYEE, NOW + 3600)
LIMITS = Limits(5_000, frozenset({GENESIS}), frozenset({"TAO"}))


class Counter:
    """A till that only says what it wants."""

    network, asset, max_timeout = GENESIS, "TAO", 600

    def extra(self):
        return {"assetTransferMethod": "tao-remark"}


def signed(offer, signer=ALICE):
    return SignedOffer(offer, signer.sign(offer.hash))


def asked(offer=OFFER, signer=ALICE, **changes):
    return {**requirement(Counter(), signed(offer, signer), ENTRY), **changes}


def challenge(*ways):
    body = {"x402Version": 2, "error": "payment_required", "accepts": list(ways)}
    return models.read_challenge(json.dumps(body).encode())


def picked(*ways, limits=LIMITS, now=NOW):
    return choose(challenge(*ways), limits, entry=ENTRY, owner=ALICE.owner, now=now)


@pytest.mark.parametrize(
    ("text", "unit", "size", "decimals", "wanted"),
    [
        ("1", "flat", 0, 6, 1_000_000),
        ("0.000001", "flat", 5, 6, 1),
        ("0.25", "flat", 5, 9, 250_000_000),
        ("0.01", "mb", 1 << 20, 6, 10_000),
        ("0.01", "mb", 1, 6, 1),
        ("0.01", "mb", (1 << 20) + 1, 6, 10_001),
        ("0.000000000000000001", "mb", 1, 6, 1),
        ("0.3", "mb", 3 * (1 << 20), 9, 900_000_000),
        ("123456789.123456789", "flat", 1, 9, 123_456_789_123_456_789),
    ],
)
def test_a_price_is_counted_in_whole_numbers_and_rounded_up(text, unit, size, decimals, wanted):
    assert pricing.amount(text, unit, size, decimals) == wanted


def test_an_amount_is_shown_in_whole_and_in_smallest_units():
    bittensor = "bittensor:" + "0" * 64
    assert pricing.shown(500_000_000, bittensor) == "0.5 TAO (500000000 rao)"
    assert pricing.shown(21_000_707_627, bittensor) == "21.000707627 TAO (21000707627 rao)"
    assert pricing.shown(20_000_000_000, bittensor) == "20 TAO (20000000000 rao)"
    assert pricing.shown(1_250_000, "eip155:8453") == "1.25 USDC (1250000 millionths)"


@pytest.mark.parametrize(
    "text",
    [None, "", "0", "0.0", "-1", "+1", "NaN", "nan", "Infinity", "1e9", "0x10", " 1", "1 ", "1,5", "01", ".5",
     "1.", "1_000", "\uff11", "9" * 13, "0." + "1" * 19],
)  # fmt: skip
def test_what_is_no_plain_price_is_refused_and_never_free(text):
    for unit in ("flat", "mb"):
        with pytest.raises(UsageError):
            pricing.amount(text, unit, 1 << 20, 9)


def test_a_price_that_the_asset_or_the_file_cannot_carry_is_refused():
    for text, unit, size, decimals in (
        ("0.0000001", "flat", 1, 6),
        ("1", "mb", 0, 6),
        ("1", "mb", -1, 6),
        ("999999999999", "mb", 1 << 50, 9),
        ("1", "hour", 1, 6),
    ):
        with pytest.raises(UsageError):
            pricing.amount(text, unit, size, decimals)
    with pytest.raises(UsageError):
        pricing.amount_of(None, 1)
    with pytest.raises(UsageError):
        pricing.amount_of(OfferTerms("solana:x", "SOL", "1", "flat", "x"), 1)
    terms = OfferTerms("eip155:8453", "0x", "0.01", "mb", "x")
    assert pricing.amount_of(terms, 3 << 20) == 30_000
    assert pricing.price("2.50") == Decimal("2.5")


@pytest.mark.parametrize(
    "text", ["1e9", " 1", "1 ", "-1", "0x10", "0", "01", "", "1.0", "9" * 40, "\u0661", True, 5, None]
)
def test_an_amount_has_one_spelling(text):
    with pytest.raises(ValueError, match="amount"):
        pricing.read_atomic(text)
    with pytest.raises(MalformedPayment):
        challenge(asked(amount=text))


def test_a_challenge_that_is_not_as_it_should_be_is_refused_whatever_it_is():
    good = {"x402Version": 2, "accepts": [asked()]}
    assert models.read_challenge(json.dumps(good).encode()).accepts[0].atomic == 5_000
    deep = b'{"x402Version":2,"accepts":[],"extensions":' + b'{"a":' * 3000 + b"1" + b"}" * 3001
    hostile = [
        b"", b"[]", b"null", b'"x"', b"\xff\xfe", b"{", b"[" * 16_000, b'{"a":1,"a":2}',
        b'{"x402Version":NaN}', deep, b" " * models.MAX_BYTES + b"{}",
        b'{"x402Version":' + b"9" * 5000 + b"}",
    ]  # fmt: skip
    for changes in (
        {"x402Version": 1}, {"x402Version": "2"}, {"x402Version": True}, {"accepts": []},
        {"accepts": [asked()] * 17}, {"accepts": {}}, {"more": 1}, {"error": 5},
    ):  # fmt: skip
        hostile.append(json.dumps({**good, **changes}).encode())
    for changes in (
        {"more": 1}, {"payTo": None}, {"payTo": ""}, {"payTo": "a b"}, {"payTo": "x" * 256}, {"scheme": 1},
        {"maxTimeoutSeconds": True}, {"maxTimeoutSeconds": 0}, {"maxTimeoutSeconds": "60"}, {"extra": []},
        {"network": "eip155:1\n"},
    ):  # fmt: skip
        hostile.append(json.dumps({**good, "accepts": [asked(**changes)]}).encode())
    for raw in hostile:
        with pytest.raises(MalformedPayment):
            models.read_challenge(raw)
    for header in (
        "",
        "?",
        "e30",
        "e30=\n",
        "é",
        "A" * (models.MAX_BYTES + 1),
        base64.b64encode(deep).decode(),
    ):
        with pytest.raises(MalformedPayment):
            models.read_payment(header)


def test_what_the_owner_offers_within_the_limits_is_chosen():
    chosen = picked(asked())
    assert chosen.signed.offer == OFFER
    assert picked(asked(amount="9999"), asked()).requirement.amount == "5000"


def other(**changes):
    offer = replace(OFFER, **changes)
    return asked(offer)


TOKEN_EXTRA = {"assetTransferMethod": "permit2"}


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (lambda: other(amount=5_001), "over_limit"),
        (lambda: other(network="bittensor:" + "cd" * 32), "other_network"),
        (lambda: other(network="eip155:8453"), "other_network"),
        (lambda: other(asset="0x" + "11" * 20), "other_asset"),
        (lambda: other(pay_to=BOB.owner[:-1]), "other_payee"),
        (lambda: other(pay_to=ss58(bytes(32))), "other_payee"),
        (lambda: other(expires=NOW + 60), "offer_expired"),
        (lambda: other(id="another"), "foreign_offer"),
        (lambda: other(version=ENTRY.seq + 1), "foreign_offer"),
        (lambda: asked(replace(OFFER, owner=BOB.owner), BOB), "foreign_offer"),
        (lambda: asked(OFFER, BOB), "unsigned_offer"),
        (lambda: asked(amount="4999"), "offer_mismatch"),
        (lambda: asked(payTo=BOB.owner), "offer_mismatch"),
        (lambda: asked(asset="tao"), "offer_mismatch"),
        (lambda: asked(scheme="upto"), "other_scheme"),
        (lambda: asked(extra={}), "unsigned_offer"),
        (lambda: asked(extra={"offer": "x"}), "unsigned_offer"),
        (lambda: asked(extra={"offer": {}}), "unsigned_offer"),
        (lambda: asked(extra={**asked()["extra"], **TOKEN_EXTRA}), "other_transfer"),
        (lambda: asked(extra={**asked()["extra"], "dataset": None}), "other_dataset"),
        (lambda: with_dataset(fileHash="00" * 32), "other_dataset"),
        (lambda: with_dataset(manifestHash="00" * 32), "other_dataset"),
        (lambda: with_dataset(version=ENTRY.seq), "other_dataset"),
        (lambda: with_dataset(sizeBytes=float(ENTRY.size)), "other_dataset"),
        (lambda: with_dataset(sizeBytes=ENTRY.size - 1), "other_dataset"),
        (lambda: with_dataset(more=1), "other_dataset"),
    ],
)
def test_anything_else_is_refused_before_anything_is_signed(way, reason):
    with pytest.raises(PolicyRefusal) as refusal:
        picked(way())
    assert refusal.value.reason == reason
    assert refusal.value.exit_code == 2


def with_dataset(**changes):
    extra = asked()["extra"]
    return asked(extra={**extra, "dataset": {**extra["dataset"], **changes}})


def test_a_payee_can_be_named_and_no_other_is_paid():
    assert picked(asked(), limits=replace(LIMITS, pay_to=frozenset({PAYEE})))
    with pytest.raises(PolicyRefusal) as refusal:
        picked(asked(), limits=replace(LIMITS, pay_to=frozenset({BOB.owner})))
    assert refusal.value.reason == "other_payee"
    for wrong in (0, -1, True, 1.5, "5"):
        with pytest.raises(ValueError, match="allows nothing"):
            replace(LIMITS, max_price=wrong)


def test_a_refusal_names_what_came_closest():
    with pytest.raises(PolicyRefusal) as refusal:
        picked(asked(scheme="upto"), other(amount=5_001), asked(extra={}))
    assert refusal.value.reason == "over_limit"


def test_a_claim_binds_offer_key_and_place():
    key, place = SigningKey(bytes(32)), b"\1" * 36
    claim = sign_claim(key, OFFER.hash, place)
    assert claim.check(OFFER.hash, place) == reference(OFFER.hash, key.public_key)
    for offer_hash, where in ((bytes(32), place), (OFFER.hash, b"\2" * 36)):
        with pytest.raises(PaymentRefused):
            claim.check(offer_hash, where)
    with pytest.raises(PaymentRefused):
        Claim(SigningKey(b"\1" * 32).public_key, claim.signature).check(OFFER.hash, place)
    for text in ("", "00", claim.key.hex().upper(), None, 5):
        with pytest.raises(PaymentRefused):
            Claim.read(text, claim.signature.hex())
    assert Claim.read(key=claim.key.hex(), signature=claim.signature.hex()) == claim
    made = reference(OFFER.hash, key.public_key)
    assert len({made, claim_hash(made, place), payment_id(GENESIS, place), payment_id("b", place)}) == 4


def test_only_what_one_account_paid_the_payee_in_time_in_that_extrinsic_counts():
    made = reference(OFFER.hash, SigningKey(bytes(32)).public_key)
    shown = Presented(b"id", b"place", made, None, None)
    paid = Transfer(DORA.owner, PAYEE, 5_000)
    mine = Remark(DORA.owner, remark_hash(made))
    terms = Terms(OFFER, 2**53)

    def judged(*transfers, remarks=(mine,), succeeded=True, time=NOW, terms=terms):
        found = Extrinsic(BlockRef(7, bytes(32)), 2, time, succeeded, transfers, remarks)
        return settled(found, shown, terms, GENESIS)

    assert judged(paid).amount == 5_000 and judged(paid).payer == DORA.owner
    assert judged(replace(paid, amount=4_000), replace(paid, amount=1_500)).amount == 5_500
    assert judged(paid, time=OFFER.expires + 3600)
    for reason, arguments, options in (
        ("failed", [paid], {"succeeded": False}),
        ("not_paid", [paid], {"remarks": ()}),
        ("not_paid", [paid], {"remarks": (Remark(DORA.owner, made),)}),
        ("wrong_payee", [], {}),
        ("wrong_payee", [replace(paid, dest=BOB.owner)], {}),
        ("wrong_payee", [replace(paid, sender=BOB.owner)], {}),  # another's money, under our remark
        ("wrong_payee", [paid], {"remarks": (Remark(BOB.owner, remark_hash(made)),)}),
        ("too_little", [replace(paid, amount=4_999), replace(paid, sender=BOB.owner)], {}),
        ("too_late", [paid], {"time": OFFER.expires + 3601}),
        ("too_late", [paid], {"terms": Terms(OFFER, NOW - 1)}),
    ):
        with pytest.raises(PaymentRefused) as refusal:
            judged(*arguments, **options)
        assert refusal.value.reason == reason


def test_references_of_a_known_offer_are_what_the_documentation_says():
    """H(tag || offer hash || claim key), written out here once more."""
    from hashlib import sha256

    key, offer_hash, place = bytes([1] * 32), bytes([2] * 32), bytes([3] * 36)
    made = sha256(b"tensorage/dataset/payment/v1".ljust(32, b"\0") + offer_hash + key).digest()
    assert reference(offer_hash, key) == made
    assert (
        claim_hash(made, place)
        == sha256(b"tensorage/dataset/claim/v1".ljust(32, b"\0") + made + place).digest()
    )
    assert (
        payment_id("eip155:1", place)
        == sha256(b"tensorage/dataset/paid/v1".ljust(32, b"\0") + b"\x08eip155:1" + place).digest()
    )


def test_a_machine_without_the_extra_is_told_what_to_install():
    """In a process in which x402 cannot be imported, everything but EVM works."""
    script = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("x402", "web3"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import tensorage.dataset.payments.join, tensorage.dataset.payments.tao, tensorage.dataset.payments.paying
from tensorage.dataset.payments.evm import EvmTill
from tensorage.dataset.payments.evm_extra import Token, usdc
from tensorage.dataset.payments.evm_wallet import EvmWallet
for make in (
    lambda: EvmTill("eip155:1", Token("0x" + "1" * 40, "a", "1"), "https://a"),
    lambda: EvmWallet("eip155:1", bytes(31) + bytes([1])),
    lambda: usdc("eip155:1"),
):
    try:
        make()
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all('pip install "tensorage[evm]"' in line for line in lines), done.stdout
    assert all(line.startswith("UsageError") for line in lines)


def test_no_slow_package_is_imported_before_it_is_needed():
    script = """
import sys
import tensorage.dataset.payments.join, tensorage.dataset.payments.policy, tensorage.dataset.payments.evm
print([name for name in ("web3", "x402") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_dora_signs_offers_too():
    log = make_log(((DORA, 1),))
    offer = replace(OFFER, owner=DORA.owner, version=1)
    way = requirement(Counter(), signed(offer, DORA), log.head)
    assert choose(challenge(way), LIMITS, entry=log.head, owner=DORA.owner, now=NOW).signed.offer == offer
