"""Tickets, receipts for shards and retrievals, and requests signed with an Ed25519 key."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage import keyauth
from tensorage.chain.auth import verify
from tensorage.chain.wallet import Hotkey
from tensorage.errors import ProofError, RequestError
from tensorage.shard import SHARD_LEAVES
from tensorage.ticket import TICKET_SIZE, Retrieval, SignedTicket, Ticket, piece_path, stored

VALIDATOR, MINER = (Hotkey.from_uri(uri) for uri in ("//V", "//M1"))
CLIENT = keyauth.SigningKey(bytes(range(32)))
NOW = 1_800_000_000 * 10**9
keys = st.binary(min_size=32, max_size=32)
tickets = st.builds(
    Ticket,
    genesis=keys,
    netuid=st.integers(0, 2**16 - 1),
    validator=st.just(VALIDATOR.public_key),
    client=st.just(CLIENT.public_key),
    miner=st.just(MINER.public_key),
    shard_root=keys,
    leaves=st.sampled_from(SHARD_LEAVES),
    expires=st.integers(0, 2**64 - 1),
    serial=st.integers(0, 2**64 - 1),
)


def signed(ticket: Ticket) -> SignedTicket:
    return SignedTicket(ticket, VALIDATOR.sign(ticket.hash))


@given(tickets)
def test_a_ticket_comes_back_from_its_bytes_and_is_its_validators(ticket):
    there = signed(ticket)
    back = SignedTicket.decode(there.encode())
    assert back == there
    assert SignedTicket.from_hex(there.encode().hex()) == there
    back.check(verify)


@given(tickets, st.integers(0, TICKET_SIZE * 8 - 1))
def test_a_ticket_with_any_bit_flipped_is_refused(ticket, bit):
    data = bytearray(signed(ticket).encode())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProofError):
        SignedTicket.decode(bytes(data)).check(verify)


@given(st.binary(max_size=TICKET_SIZE + 2).filter(lambda data: len(data) != TICKET_SIZE))
def test_bytes_of_another_length_are_no_ticket(data):
    with pytest.raises(ProofError, match="no ticket"):
        SignedTicket.decode(data)


@given(tickets)
def test_every_field_of_a_ticket_is_in_its_hash(ticket):
    for field in fields(ticket):
        value = getattr(ticket, field.name)
        other = bytes([value[0] ^ 1]) + value[1:] if isinstance(value, bytes) else value ^ 1
        assert replace(ticket, **{field.name: other}).hash != ticket.hash


@given(keys, st.integers(0, 2**63))
def test_a_receipt_is_its_miners_and_about_one_ticket(ticket_hash, unix_ms):
    receipt = stored(ticket_hash, unix_ms, MINER.sign)
    receipt.check(MINER.public_key, verify)
    for wrong in (replace(receipt, unix_ms=unix_ms + 1), replace(receipt, ticket_hash=bytes(32))):
        if wrong != receipt:
            with pytest.raises(ProofError):
                wrong.check(MINER.public_key, verify)
    with pytest.raises(ProofError):
        receipt.check(VALIDATOR.public_key, verify)


def test_a_retrieval_holds_the_words_of_both_sides():
    ticket = Ticket(
        bytes(32), 1, VALIDATOR.public_key, CLIENT.public_key, MINER.public_key, bytes(32), 1024, 9, 1
    )
    path = piece_path(ticket.hash, 64, 64)
    headers = CLIENT.sign_request(method="GET", path=path, body=b"", receiver=MINER.public_key, nonce_ns=NOW)
    asked = bytes.fromhex(headers[keyauth.SIGNATURE_HEADER])
    draft = Retrieval(ticket.hash, 64, 64, NOW, asked, bytes(64))
    given_ = replace(draft, miner_signature=MINER.sign(draft.hash))
    given_.check(ticket, verify)
    for wrong in (
        replace(given_, count=128, first=0),
        replace(given_, nonce_ns=NOW + 1),
        replace(given_, client_signature=bytes(64)),
        replace(given_, miner_signature=bytes(64)),
        replace(given_, count=3),
    ):
        with pytest.raises(ProofError):
            wrong.check(ticket, verify)
    with pytest.raises(ProofError, match="not of"):
        given_.check(replace(ticket, serial=2), verify)


def request(**changes):
    facts = {"method": "PUT", "path": "/v1/files?a=1", "body": b"bytes", "receiver": MINER.public_key}
    headers = CLIENT.sign_request(**facts, nonce_ns=NOW)
    return {"headers": headers, **facts, "now_ns": NOW + 10**9, **changes}


def test_a_signed_request_names_its_key_and_nonce():
    found = keyauth.verify_request(**request())
    assert (found.key, found.nonce_ns) == (CLIENT.public_key, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "POST"},
        {"path": "/v1/files?a=2"},
        {"body": b"byteS"},
        {"receiver": VALIDATOR.public_key},
        {"now_ns": NOW + 11 * 10**9},
        {"now_ns": NOW - 3 * 10**9},
        {"headers": {}},
    ],
    ids=["method", "path", "body", "receiver", "too old", "from the future", "unsigned"],
)
def test_a_request_that_is_not_the_signed_one_or_not_of_now_is_refused(changes):
    with pytest.raises(RequestError) as refusal:
        keyauth.verify_request(**request(**changes))
    assert refusal.value.kind == "unauthenticated"


@given(st.sampled_from(sorted(request()["headers"])), st.text(max_size=130))
def test_a_header_that_makes_no_sense_is_refused(name, value):
    facts = request()
    if value == facts["headers"][name]:
        return
    with pytest.raises(RequestError):
        keyauth.verify_request(**{**facts, "headers": {**facts["headers"], name: value}})
