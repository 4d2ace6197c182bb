"""Prices are exact, and whatever bytes come as a challenge or payment, they are read or refused."""

import base64
import json
from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from tensorage.dataset.payments import models, pricing
from tensorage.dataset.payments.errors import MalformedPayment
from tensorage.errors import UsageError

WAY = {
    "scheme": "exact",
    "network": "bittensor:00",
    "amount": "5",
    "asset": "TAO",
    "payTo": "5F",
    "maxTimeoutSeconds": 60,
    "extra": {"offer": {"amount": "5"}},
}
CHALLENGE = {"x402Version": 2, "error": "e", "resource": {"url": "u"}, "accepts": [WAY], "extensions": {}}
PAYMENT = {"x402Version": 2, "accepted": WAY, "payload": {"blockHash": "00"}, "extensions": None}
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


def places(value, path=()):
    yield path
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(inner, (*path, name))


def changed(document, path, value):
    if not path:
        return value
    first, *rest = path
    copy = document.copy()
    copy[first] = changed(document[first], rest, value)
    return copy


def read_both(raw):
    for read in (models.read_challenge, lambda raw: models.read_payment(base64.b64encode(raw).decode())):
        try:
            read(raw)
        except MalformedPayment as error:
            assert "\n" not in error.message and len(error.message) < 400


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw):
    read_both(raw)


@given(st.sampled_from([CHALLENGE, PAYMENT]), st.data(), values)
def test_any_change_of_a_document_is_read_or_refused(document, data, value):
    path = data.draw(st.sampled_from(list(places(document))))
    read_both(json.dumps(changed(document, path, value)).encode())


@given(values)
def test_what_is_read_as_an_amount_is_digits_above_zero(value):
    raw = json.dumps(changed(CHALLENGE, ("accepts", 0, "amount"), value)).encode()
    try:
        read = models.read_challenge(raw).accepts[0]
    except MalformedPayment:
        return
    assert read.atomic > 0 and read.amount == str(read.atomic) == value


@given(
    st.integers(0, 10**12 - 1),
    st.integers(0, 18),
    st.integers(0, 10**18 - 1),
    st.integers(0, 1 << 44),
    st.sampled_from([6, 9]),
)
def test_a_price_by_the_mb_is_the_exact_product_rounded_up(whole, places, part, size, decimals):
    text = f"{whole}.{part:018d}"[: len(str(whole)) + 1 + places].rstrip(".")
    wanted = ceil(Fraction(text) * 10**decimals * size / (1 << 20))
    try:
        assert pricing.amount(text, "mb", size, decimals) == wanted
    except UsageError:
        assert size == 0 or not 0 < wanted < 2**64
