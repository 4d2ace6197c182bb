"""Documents from anybody: capped, read strictly, and refused with a reason that a machine can act on."""

import json
from dataclasses import replace
from itertools import count

import pytest
from dataset_logs import ALICE, DORA, NOW, filled, make_log, next_entry, sign, sign_head

from tensorage.dataset import identity, wire
from tensorage.dataset.entry import Offer, SignedOffer
from tensorage.dataset.errors import LogError
from tensorage.dataset.log import Log, verify_log
from tensorage.dataset.manifest import File, manifest_json
from tensorage.errors import ProofError

LOG = make_log(((DORA, 2),))
DOCUMENT = wire.log_json(LOG, sign_head(LOG, DORA))
TEXT = json.dumps(DOCUMENT)


def reason(raw) -> str:
    with pytest.raises(LogError) as caught:
        wire.read_any_log(raw)
    assert len(str(caught.value)) < 400, "a message repeats what it was sent"
    return caught.value.reason


@pytest.mark.parametrize(
    "raw",
    [
        "",
        b"\xff",
        b"\xef\xbb\xbf" + TEXT.encode(),
        "null",
        "1",
        '"' + "x" * 1000 + '"',
        "[" * 2_000,
        '{"a":' * 2_000,
        "[" * 2_000 + " " * 10_000_000,
        TEXT + "x",
        TEXT.replace('"seq": 1', '"seq": 1, "seq": 1'),
        TEXT.replace('"seq": 1', '"seq": NaN'),
        TEXT.replace('"seq": 1', '"seq": Infinity'),
        TEXT.replace('"seq": 1', '"seq": 1.0'),
        TEXT.replace('"seq": 1', '"seq": 1e0'),
        TEXT.replace('"seq": 1', '"seq": true'),
        TEXT.replace('"seq": 1', '"seq": "1"'),
        TEXT.replace('"seq": 1', '"seq": 0'),
        TEXT.replace('"seq": 1', '"seq": -1'),
        TEXT.replace('"seq": 1', '"seq": ' + "9" * 5000),
        TEXT.replace('"size": 100', '"size": 9007199254740992'),
        TEXT.replace('"time": ', '"time": 99999999999'),
        TEXT.replace('"version": 2', '"version": 3'),
        TEXT.replace('"version": 2', '"version": true'),
        TEXT.replace('"version": 2, ', ""),
        TEXT.replace('"sft-demo"', '"../sft"'),
        TEXT.replace('"sft-demo"', '"SFT-demo"'),
        TEXT.replace('"sft-demo"', '"sft-demo\\n"'),
        TEXT.replace('"sft-demo"', '"\\ud800"'),
        TEXT.replace('"sft-demo"', '"sft\\u0000"'),
        TEXT.replace('"sft-demo"', '"\u017fft"'),
        TEXT.replace('"signature": "', '"signature": "00'),
        TEXT.replace('"signature": "', '"signature": "0x'),
        TEXT.replace('"prev": "00', '"prev": "\uff10\uff10'),
        TEXT.replace('"prev": "00', '"prev": "\\n0'),
        TEXT.replace('", "size"', '\\n", "size"'),
        json.dumps(DOCUMENT | {"extra": 1}),
        json.dumps(DOCUMENT | {"x" * 100_000: 1}),
        json.dumps(DOCUMENT | {"versions": {}}),
        json.dumps(DOCUMENT | {"versions": [[]]}),
        json.dumps(DOCUMENT | {"rotations": None}),
        json.dumps(DOCUMENT | {"head": []}),
        json.dumps(DOCUMENT | {"head": DOCUMENT["head"] | {"expires": DOCUMENT["head"]["issued"]}}),
    ],
    ids=count(),
)
def test_a_document_that_is_not_exactly_a_log_is_malformed(raw):
    assert raw != TEXT
    assert reason(raw) == "malformed"


def test_a_document_is_refused_before_it_is_read_when_it_is_too_long():
    assert reason(b" " * (wire.MAX_LOG_BYTES + 1)) == "too_large"
    assert reason(TEXT + " " * wire.MAX_LOG_BYTES) == "too_large"
    for read in (wire.read_head, wire.read_offer, wire.read_anchor, wire.read_head_header):
        with pytest.raises(LogError) as caught:
            read(" " * (wire.MAX_STATEMENT_BYTES + 1))
        assert caught.value.reason == "too_large"


@pytest.mark.parametrize("piece", ["[],", "{},", '{"a":1},', '"",', "0,"])
def test_a_document_that_would_fill_the_memory_is_refused_before_it_is_read(piece):
    assert reason('{"id":"a","version":2,"versions":[' + piece * 20_000 + "{}]}") == "too_large"


def test_hex_in_upper_case_is_not_canonical():
    assert reason(json.dumps(DOCUMENT).replace(DORA.owner, DORA.owner.upper())) == "not_canonical"
    assert reason(json.dumps(DOCUMENT).replace(DORA.owner[2:], DORA.owner[2:].upper())) == "not_canonical"
    hashed = LOG.head.prev_hash.hex()
    assert reason(json.dumps(DOCUMENT).replace(hashed, hashed.upper())) == "not_canonical"


def test_a_log_needs_no_statement_and_no_rotations():
    for name in ("head", "rotations"):
        document = {key: value for key, value in DOCUMENT.items() if key != name}
        log, head = wire.read_log(json.dumps(document))
        assert log == LOG and (head is None) == (name == "head")


def test_a_log_of_no_versions_is_read_and_does_not_hold():
    log, _ = wire.read_log('{"id":"sft-demo","version":2,"versions":[]}')
    for fault in (
        lambda: verify_log(log, owner=None, verify=identity.verify),
        lambda: log.head,
        lambda: log.owner,
    ):
        with pytest.raises(LogError) as caught:
            fault()
        assert caught.value.reason == "empty"


def test_ten_thousand_versions_by_a_hotkey_are_read_and_hold():
    first = next_entry(Log("sft-demo", ()), ALICE)
    entries = [first]
    for seq in range(2, 10_001):
        entry = replace(first.entry, seq=seq, prev_hash=entries[-1].entry.hash)
        entries.append(sign(entry, ALICE))
    log = Log("sft-demo", tuple(entries))
    read, _ = wire.read_log(json.dumps(wire.log_json(log)).encode())
    assert verify_log(read, owner=ALICE.owner, verify=identity.verify).seq == 10_000


def offer(**change) -> Offer:
    fields = {
        "id": "sft-demo",
        "owner": DORA.owner,
        "version": 2,
        "network": "bittensor:" + "ab" * 32,
        "asset": "TAO",
        "amount": 2**200,
        "pay_to": ALICE.owner,
        "expires": NOW,
    }
    return Offer(**(fields | change))


def test_an_offer_survives_the_wire_and_every_field_of_it_is_signed():
    signed = SignedOffer(offer(), DORA.sign(offer().hash))
    assert wire.read_offer(json.dumps(wire.offer_json(signed))) == signed
    hashes = {offer().hash}
    for change in (
        {"id": "other"},
        {"owner": ALICE.owner},
        {"version": 1},
        {"network": "bittensor:"},
        {"asset": "TAO2"},
        {"amount": 1},
        {"pay_to": DORA.owner},
        {"expires": 1},
        {"network": "eip155:1T", "asset": "AO"},
    ):
        hashes.add(offer(**change).hash)
    assert len(hashes) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 0},
        {"amount": -1},
        {"amount": 2**256},
        {"amount": True},
        {"amount": 1.0},
        {"version": 0},
        {"network": ""},
        {"network": "a b"},
        {"asset": "T\u0410O"},
        {"pay_to": "x" * 256},
        {"pay_to": "x\n"},
        {"expires": 2**53},
    ],
)
def test_an_offer_that_nobody_can_mean_is_malformed(change):
    with pytest.raises(LogError) as caught:
        offer(**change)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("amount", ["01", "+1", "-1", "1.0", "1e3", "0", "", " 1", "1" * 79, 1, "\u0661"])
def test_an_amount_has_one_spelling(amount):
    document = wire.offer_json(SignedOffer(offer(), DORA.sign(offer().hash))) | {"amount": amount}
    with pytest.raises(LogError):
        wire.read_offer(json.dumps(document))


def test_a_head_travels_in_a_header():
    head = sign_head(LOG, DORA)
    assert wire.read_head_header(wire.head_header(head)) == head
    for wrong in ("", "x", "\u00e9", wire.head_header(head)[:-4], "bnVsbA=="):
        with pytest.raises(LogError):
            wire.read_head_header(wrong)


def test_a_manifest_survives_the_wire():
    files = (File("a.jsonl", 3, filled("a")), File("b \u00e9.md", 0, filled("b")))
    assert wire.read_manifest(json.dumps(manifest_json(files))) == files
    for wrong in ("../x", "", "a/b", "\u202etxt", "x" * 256):
        document = manifest_json(files)
        document["files"][0]["name"] = wrong
        with pytest.raises(ProofError):
            wire.read_manifest(json.dumps(document))


def test_an_entry_in_a_receipt_is_of_the_dataset_that_it_is_said_to_be_of():
    signed = LOG.entries[1]
    assert wire.read_entry(json.dumps(wire.entry_json(signed)), LOG.id) == signed
    other = wire.read_entry(wire.entry_json(signed), "another")
    assert not identity.verify(DORA.owner, other.entry.hash, other.signature)
    assert replace(other.entry, id=LOG.id) == signed.entry
