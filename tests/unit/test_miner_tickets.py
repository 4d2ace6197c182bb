"""Which tickets a miner takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tensorage.allocator.layout import Identity
from tensorage.chain.auth import verify
from tensorage.chain.types import BlockRef, Metagraph, Neuron
from tensorage.chain.wallet import Hotkey
from tensorage.errors import RequestError
from tensorage.miner.tickets import LONGEST, check_ticket, ticket_of
from tensorage.ticket import SignedTicket, Ticket
from tensorage.transport.file_calls import TICKET_HEADER

VALIDATOR, OTHER, MINER = (Hotkey.from_uri(uri) for uri in ("//V", "//M2", "//M1"))
ME = Identity(b"g" * 32, 7, MINER.public_key, 0)
NOW = 1_000_000
TICKET = Ticket(
    ME.genesis, 7, VALIDATOR.public_key, b"c" * 32, MINER.public_key, b"r" * 32, 16, NOW + 60, serial=5
)


def neuron(uid: int, key: Hotkey, *, permit: bool) -> Neuron:
    stake = 1000.0 if permit else 0.0
    zeros = {"incentive": 0.0, "dividends": 0.0, "consensus": 0.0, "emission": 0.0}
    return Neuron(uid, key.ss58, key.ss58, None, permit, True, stake, stake, 0.0, 0, 0, **zeros)


METAGRAPH = Metagraph(
    7,
    BlockRef(1, bytes(32)),
    360,
    VALIDATOR.ss58,
    (neuron(0, VALIDATOR, permit=True), neuron(1, OTHER, permit=False)),
)


def signed(key: Hotkey = VALIDATOR, **changes) -> SignedTicket:
    ticket = replace(TICKET, **changes)
    return SignedTicket(ticket, key.sign(ticket.hash))


def refusal(ticket: SignedTicket) -> str:
    with pytest.raises(RequestError) as refused:
        check_ticket(ticket, ME, METAGRAPH, NOW, verify)
    assert refused.value.kind == "forbidden"
    return str(refused.value)


def test_a_validators_ticket_for_us_is_taken_up_to_its_last_second():
    check_ticket(signed(), ME, METAGRAPH, NOW, verify)
    check_ticket(signed(), ME, METAGRAPH, TICKET.expires - 1, verify)
    check_ticket(signed(expires=NOW + LONGEST), ME, METAGRAPH, NOW, verify)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"genesis": bytes(32)}, "chain 0000"),
        ({"netuid": 8}, "subnet 8"),
        ({"miner": OTHER.public_key}, f"the miner {OTHER.ss58}"),
        ({"expires": NOW}, "expired 0 s ago"),
        ({"expires": NOW - 5}, "expired 5 s ago"),
        ({"expires": NOW + LONGEST + 1}, "more than 400 days"),
        ({"expires": (1 << 64) - 1}, "more than 400 days"),
        ({"validator": MINER.public_key}, "no validator permit"),  # not on the subnet
    ],
)
def test_a_ticket_that_is_not_for_us_or_not_for_now_is_refused(changes, why):
    assert why in refusal(signed(**changes))


def test_a_ticket_of_a_neuron_without_a_permit_is_refused():
    assert "no validator permit" in refusal(signed(OTHER, validator=OTHER.public_key))


def test_a_ticket_that_somebody_else_signed_or_altered_is_refused():
    assert "not signed by the validator" in refusal(signed(OTHER))
    good = signed()
    for field, value in {"client": b"d" * 32, "shard_root": bytes(32), "leaves": 32, "serial": 6}.items():
        altered = SignedTicket(replace(TICKET, **{field: value}), good.signature)
        assert "not signed by the validator" in refusal(altered)


def test_an_upload_must_name_its_own_ticket():
    ticket = signed()
    headers = {TICKET_HEADER: ticket.encode().hex()}
    assert ticket_of(headers, ticket.ticket.hash.hex()) == ticket
    wrong = [
        ({}, ticket.ticket.hash.hex()),
        ({TICKET_HEADER: "00"}, ticket.ticket.hash.hex()),
        ({TICKET_HEADER: headers[TICKET_HEADER].upper()}, ticket.ticket.hash.hex()),
        (headers, bytes(32).hex()),
        (headers, "no hash"),
        ({TICKET_HEADER: signed(leaves=17).encode().hex()}, signed(leaves=17).ticket.hash.hex()),
    ]
    for given, named in wrong:
        with pytest.raises(RequestError) as refused:
            ticket_of(given, named)
        assert refused.value.kind == "malformed"
