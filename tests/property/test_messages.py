"""Wire messages: what is written is read again, and no bytes make the parser fail in another way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage.chain.address import ss58
from tensorage.commitment import Commitment, SignedCommitment
from tensorage.errors import ProofError, RequestError
from tensorage.receipts import Receipt, Verdict
from tensorage.ticket import Retrieval, SignedTicket, Stored, Ticket
from tensorage.transport import file_messages
from tensorage.transport.file_messages import (
    CompleteFile,
    FileMessage,
    GatewayInfo,
    Place,
    PlacementRequest,
    RetrievalMessage,
    ShardPlace,
    SlotMessage,
    SlotsPage,
    StoredBatch,
    StoredMessage,
    StripeMessage,
    TicketsMessage,
    TicketsRequest,
    Transition,
)
from tensorage.transport.messages import (
    SECTORS_PAGE,
    ChallengeMessage,
    CommitmentMessage,
    ErrorMessage,
    Message,
    Ping,
    ReceiptsPage,
    SectorsPage,
    parse,
)

#: Every message for files, each with what its JSON can be.
FILE_MODELS = sorted(
    (
        model
        for model in vars(file_messages).values()
        if isinstance(model, type)
        and issubclass(model, Message)
        and model.__module__ == file_messages.__name__
        and not model.__name__.startswith("_")
    ),
    key=lambda model: model.__name__,
)
MODELS = [ChallengeMessage, CommitmentMessage, ErrorMessage, Ping, ReceiptsPage, SectorsPage, *FILE_MODELS]

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


# Files

signatures = st.binary(min_size=64, max_size=64)
tickets = st.builds(
    SignedTicket,
    st.builds(
        Ticket,
        genesis=hashes,
        netuid=st.integers(0, 65535),
        validator=hashes,
        client=hashes,
        miner=hashes,
        shard_root=hashes,
        leaves=u32,
        expires=u64,
        serial=u64,
    ),
    signatures,
)


@given(st.builds(Stored, hashes, u64, signatures))
def test_a_receipt_of_a_miner_survives_the_wire(stored):
    assert parse(StoredMessage, StoredMessage.of(stored).model_dump_json().encode()).stored() == stored


@given(u64, st.builds(Retrieval, hashes, u32, u32, u64, signatures, signatures))
def test_a_retrieval_survives_the_wire(number, record):
    message = parse(RetrievalMessage, RetrievalMessage.of(number, record).model_dump_json().encode())
    assert (message.id, message.retrieval()) == (number, record)


@given(st.lists(tickets, max_size=3))
def test_tickets_survive_the_wire(signed):
    assert parse(TicketsMessage, TicketsMessage.of(signed).model_dump_json().encode()).signed() == signed


HOTKEY = ss58(bytes(32))
TICKET = "01" + "00" * 246
HASH = "00" * 32
SIGNATURE = "00" * 64
PLACE = {"number": 0, "hotkey": HOTKEY, "ip": "1.2.3.4", "port": 1}
WANTED = {"number": 0, "miner": HOTKEY, "root": HASH}
RECEIPT = {"ticket": HASH, "unix_ms": 0, "signature": SIGNATURE}
LIES = {**PLACE, "ticket": TICKET, "health": "ok", "checked": None}
STRIPE = {"number": 0, "leaves": 16, "shards": [LIES]}
GOOD = {
    CompleteFile: {"size": 1, "stripes": 1, "spread": HASH, "reader": HASH},
    FileMessage: {
        "id": "00" * 16,
        "state": "stored",
        "expires": 1,
        "data_shards": 10,
        "parity_shards": 20,
        "size": 1,
        "stripe_count": 1,
        "stripes": [STRIPE],
        "next": None,
    },
    GatewayInfo: {
        "hotkey": HOTKEY,
        "genesis": HASH,
        "netuid": 7,
        "spec_version": 1,
        "data_shards": 1,
        "parity_shards": 0,
        "coldkeys": 1,
        "networks": 1,
        "max_expiry_seconds": 1,
        "note": "",
    },
    Place: PLACE,
    PlacementRequest: {"leaves": 16, "avoid": []},
    ShardPlace: LIES,
    SlotsPage: {"slots": [{"sector": 0, "chunk": 0, "ticket": TICKET}], "next": None},
    StoredBatch: {"receipts": [RECEIPT]},
    StripeMessage: STRIPE,
    TicketsRequest: {"leaves": 1024, "shards": [WANTED]},
    Transition: {
        "before": HASH * 2,
        "after": HASH * 2,
        "changed": [{"chunk": 1, "node": HASH, "siblings": [HASH]}],
    },
}


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (CompleteFile, "spread", "00" * 31),
        (CompleteFile, "reader", "0X" + "00" * 31),
        (CompleteFile, "size", 2**64),
        (CompleteFile, "stripes", True),
        (FileMessage, "id", "00" * 17),
        (FileMessage, "state", "lost"),
        (FileMessage, "data_shards", 0),
        (FileMessage, "parity_shards", 247),
        (FileMessage, "stripes", [STRIPE, STRIPE]),
        (FileMessage, "stripes", [STRIPE | {"number": n} for n in range(33)]),
        (GatewayInfo, "hotkey", HOTKEY[:-1] + "1"),
        (GatewayInfo, "hotkey", ""),
        (GatewayInfo, "netuid", 65536),
        (GatewayInfo, "note", "x" * 501),
        (GatewayInfo, "parity_shards", 256),
        (Place, "ip", "example.org"),
        (Place, "ip", "1.2.3.4/24"),
        (Place, "ip", None),
        (Place, "port", 0),
        (Place, "port", 65536),
        (Place, "number", 256),
        (PlacementRequest, "leaves", 17),
        (PlacementRequest, "leaves", 8),
        (PlacementRequest, "leaves", 2048),
        (PlacementRequest, "avoid", [HOTKEY] * 257),
        (ShardPlace, "health", "fine"),
        (ShardPlace, "ticket", TICKET + "00"),
        (ShardPlace, "ticket", TICKET[:-2]),
        (ShardPlace, "checked", -1),
        (SlotsPage, "slots", [{"sector": 0, "chunk": 0, "ticket": TICKET}] * 2),
        (SlotsPage, "slots", [{"sector": 0, "chunk": 256, "ticket": TICKET}]),
        (SlotsPage, "slots", [{"sector": n, "chunk": 0, "ticket": TICKET} for n in range(1025)]),
        (StoredBatch, "receipts", []),
        (StoredBatch, "receipts", [RECEIPT] * 257),
        (StripeMessage, "shards", [LIES, LIES]),
        (TicketsRequest, "shards", []),
        (TicketsRequest, "shards", [WANTED, WANTED]),
        (TicketsRequest, "shards", [WANTED | {"more": 1}]),
        (Transition, "before", HASH),
        (Transition, "before", HASH * 2 + "00"),
        (Transition, "before", ""),
        (Transition, "before", "\u0661" * 128),
        (Transition, "changed", [{"chunk": 2, "node": HASH, "siblings": []}]),
        (Transition, "changed", [{"chunk": 1, "node": HASH, "siblings": [HASH] * 7}]),
        (Transition, "changed", [{"chunk": 1, "node": HASH, "siblings": []}] * 2),
    ],
)
def test_what_is_out_of_bounds_in_a_message_for_files_is_refused(model, field, value):
    good = GOOD[model]
    message = parse(model, json.dumps(good).encode())
    assert parse(model, message.model_dump_json().encode()) == message
    assert field in good
    with pytest.raises(RequestError):
        parse(model, json.dumps(good | {field: value}).encode())


def test_bytes_that_are_no_ticket_are_refused_when_they_are_read():
    slot = parse(SlotMessage, json.dumps({"sector": 0, "chunk": 0, "ticket": "02" * 247}).encode())
    with pytest.raises(ProofError):
        slot.signed()


def _unbounded(schema: object, where: str) -> list[str]:
    """The lists and texts of a JSON schema that may have any length, and numbers without a greatest."""
    if isinstance(schema, list):
        return [found for part in schema for found in _unbounded(part, where)]
    if not isinstance(schema, dict):
        return []
    found = []
    kind = schema.get("type")
    if kind == "array" and "maxItems" not in schema:
        found.append(where)
    if kind == "string" and not {"maxLength", "enum", "const"} & set(schema):
        found.append(where)
    if kind == "integer" and not {"maximum", "exclusiveMaximum", "enum", "const"} & set(schema):
        found.append(where)
    return found + [f for name, part in schema.items() for f in _unbounded(part, f"{where}.{name}")]


@pytest.mark.parametrize("model", FILE_MODELS, ids=lambda model: model.__name__)
def test_everything_in_a_message_for_files_is_bounded(model):
    assert _unbounded(model.model_json_schema(mode="validation"), model.__name__) == []
