"""Wire messages: what is written is read again, and no bytes make the parser fail in another way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage.commitment import Commitment, SignedCommitment
from tensorage.errors import ProofError, RequestError
from tensorage.receipts import Receipt, Verdict
from tensorage.transport.messages import (
    SECTORS_PAGE,
    ChallengeMessage,
    CommitmentMessage,
    ErrorMessage,
    Ping,
    ReceiptsPage,
    SectorsPage,
    parse,
)

MODELS = [ChallengeMessage, CommitmentMessage, ErrorMessage, Ping, ReceiptsPage, SectorsPage]

hashes = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
)
challenges = st.builds(
    ChallengeMessage,
    commitment=hashes,
    block_number=u64,
    block_hash=hashes,
    round=u32,
    hops=st.integers(1, 1024),
)
commitments = st.builds(
    SignedCommitment,
    st.builds(
        Commitment,
        genesis=st.just(bytes(32)),
        netuid=st.just(7),
        miner=st.just(b"m" * 32),
        seq=st.integers(1, 2**64 - 1),
        prev_hash=hashes,
        profile=st.integers(0, 255),
        sector_count=u64,
        capacity_root=hashes,
        block_number=u64,
    ),
    st.binary(min_size=64, max_size=64),
)
receipts = st.builds(
    Receipt,
    genesis=hashes,
    netuid=st.integers(0, 65535),
    validator=hashes,
    seq=u64,
    prev_hash=hashes,
    unix_ms=u64,
    miner=hashes,
    commitment_hash=hashes,
    block_number=u64,
    block_hash=hashes,
    round=u32,
    hops=u32,
    audited_sector=u64,
    elapsed_ms=u32,
    verdict=st.sampled_from(Verdict),
    reason=st.text(st.characters(exclude_categories=["C"]), max_size=100),
    final_state=hashes,
    evidence_hash=hashes,
)


@given(challenges)
def test_a_challenge_survives_the_wire(message):
    assert parse(ChallengeMessage, message.model_dump_json().encode()) == message


@given(commitments)
def test_a_commitment_survives_the_wire_and_belongs_to_its_miner(signed):
    message = parse(CommitmentMessage, CommitmentMessage.of(signed).model_dump_json().encode())
    assert message.signed(genesis=bytes(32), netuid=7, miner=b"m" * 32) == signed
    for other in ({"netuid": 8}, {"miner": b"o" * 32}, {"genesis": b"g" * 32}):
        with pytest.raises(ProofError, match="has the hash"):
            message.signed(**{"genesis": bytes(32), "netuid": 7, "miner": b"m" * 32, **other})


@given(st.lists(st.tuples(receipts, st.binary(min_size=64, max_size=64)), max_size=3), st.none() | u64)
def test_receipts_survive_the_wire(signed, following):
    page = parse(ReceiptsPage, ReceiptsPage.of(signed, following).model_dump_json().encode())
    assert page.signed() == signed
    assert page.next == following


@given(
    st.sampled_from(MODELS), st.binary(max_size=300) | values.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_message_or_a_refusal_in_one_line(model, data):
    try:
        parse(model, data)
    except RequestError as error:
        assert error.http_status == 400
        assert "\n" not in str(error)
        assert len(str(error)) <= 200


@given(challenges, st.sampled_from(sorted(ChallengeMessage.model_fields)), values)
def test_a_field_of_another_type_is_refused(message, name, value):
    document = json.loads(message.model_dump_json())
    if type(value) is type(document[name]):
        return
    document[name] = value
    with pytest.raises(RequestError, match=name):
        parse(ChallengeMessage, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("commitment", "0x" + "ab" * 31),
        ("commitment", "AB" * 32),
        ("commitment", "ab" * 31),
        ("commitment", "ab" * 33),
        ("commitment", "\u0661" * 64),
        ("block_number", 2**64),
        ("block_number", -1),
        ("block_number", True),
        ("block_number", 1.0),
        ("block_number", "1"),
        ("round", 2**32),
        ("hops", 0),
        ("hops", 1025),
        ("more", 1),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(field, value):
    document = {"commitment": "00" * 32, "block_number": 1, "block_hash": "00" * 32, "round": 0, "hops": 1}
    assert parse(ChallengeMessage, json.dumps(document).encode())
    with pytest.raises(RequestError, match=field):
        parse(ChallengeMessage, json.dumps(document | {field: value}).encode())


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b'{"a":' * 50_000, b'{"hops": ' + b"9" * 60_000 + b"}", b"", b"\xff", b"NaN"],
    ids=["deep", "deeper", "digits", "empty", "latin", "nan"],
)
def test_bytes_made_to_hurt_a_parser_are_malformed(data):
    with pytest.raises(RequestError):
        parse(ChallengeMessage, data)


def test_a_listing_must_be_whole_ascending_and_bounded():
    def page(indices: list[int], roots: int) -> bytes:
        return json.dumps({"indices": indices, "roots": ["00" * 32] * roots}).encode()

    assert parse(SectorsPage, page([0, 1, 5], 3)).indices == [0, 1, 5]
    for indices, roots in (([0, 1], 1), ([1, 0], 2), ([1, 1], 2), (list(range(SECTORS_PAGE + 1)),) * 2):
        with pytest.raises(RequestError):
            parse(SectorsPage, page(indices, roots if isinstance(roots, int) else len(roots)))
