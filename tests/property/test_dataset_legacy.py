"""Logs of format 1: read, and believed no further than the format allows."""

import json
from dataclasses import replace

import pytest
from dataset_logs import ALICE, DORA, FRANK, filled, high_s, make_log
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorage.dataset import verifying, wire
from tensorage.dataset.errors import LogError
from tensorage.dataset.legacy import LegacyLog, LegacyRecord


def append(log: LegacyLog, signer, **change) -> LegacyLog:
    seq = len(log.records) + 1
    fields = {
        "seq": seq,
        "manifest_hash": filled(f"manifest {seq}").hex(),
        "file_hash": filled(f"file {seq}").hex(),
        "size": 100 * seq,
        "prev_sig": log.records[-1].signature if log.records else "",
        "timestamp": "2026-06-14T12:00:00.5Z",
        "signature": "",
    }
    record = LegacyRecord(**(fields | change))
    return LegacyLog(log.id, (*log.records, replace(record, signature=signer.sign(record.digest).hex())))


def make(count=3, signer=DORA, id="old") -> LegacyLog:
    log = LegacyLog(id, ())
    for _ in range(count):
        log = append(log, signer)
    return log


def document(log: LegacyLog) -> dict:
    names = ("seq", "manifestHash", "fileHash", "size", "prevSig", "timestamp", "signature")
    return {"id": log.id, "versions": [dict(zip(names, vars(r).values(), strict=True)) for r in log.records]}


def refusal(log: LegacyLog, owner: str | None = DORA.owner) -> LogError:
    with pytest.raises(LogError) as caught:
        verifying.verify(log, owner=owner)
    return caught.value


def with_record(log: LegacyLog, index: int, **change) -> LegacyLog:
    record = replace(log.records[index], **change)
    return replace(log, records=(*log.records[:index], record, *log.records[index + 1 :]))


LOG = make()


def test_a_log_of_format_1_is_read_as_an_object_and_as_a_bare_list():
    for raw, id in ((document(LOG), "old"), (document(LOG)["versions"], "")):
        log, head = wire.read_any_log(json.dumps(raw))
        assert log == replace(LOG, id=id) and head is None
        for owner in (DORA.owner, "0x" + DORA.owner[2:].upper()):
            verified = verifying.verify(log, owner=owner, id="old")
            assert (verified.version, verified.seq, verified.pinned) == (1, 3, True)
            assert verified.owner == verified.root_owner == DORA.owner
    with pytest.raises(LogError) as caught:
        wire.read_log(json.dumps(document(LOG)))
    assert caught.value.reason == "old_version"


@pytest.mark.parametrize(
    ("log", "reason", "text"),
    [
        (make(0), "empty", "dataset: version log is empty"),
        (with_record(LOG, 1, seq=3), "non_monotonic", "dataset: version at index 1 has non-monotonic seq 3"),
        (
            with_record(LOG, 1, seq=2**70),
            "non_monotonic",
            "dataset: version at index 1 has non-monotonic seq",
        ),
        (
            with_record(LOG, 1, prev_sig=""),
            "chain_break",
            "dataset: version 2: chain break (prevSig does not match predecessor)",
        ),
        (with_record(LOG, 0, size=-1), "malformed", "dataset: version 1: size must be >= 0"),
        (with_record(LOG, 0, size=2**63), "malformed", "dataset: version 1: size must be >= 0"),
        (with_record(LOG, 0, size=True), "malformed", "dataset: version 1: size must be >= 0"),
        (
            with_record(LOG, 0, file_hash="ab"),
            "malformed",
            "dataset: version 1: fileHash: want 64 hex chars, got 2",
        ),
        (
            with_record(LOG, 0, manifest_hash="\u0661" * 64),
            "malformed",
            "dataset: version 1: manifestHash: want 64 hex chars, got 64",
        ),
        (
            with_record(LOG, 0, signature="zz"),
            "bad_signature",
            "dataset: version 1: bad signature: decode signature",
        ),
        (
            with_record(LOG, 0, signature="00" * 64),
            "bad_signature",
            "dataset: version 1: bad signature: signature length 64, want 65",
        ),
        (
            with_record(LOG, 0, signature="00" * 65),
            "bad_signature",
            "dataset: version 1: bad signature: recover pubkey",
        ),
        (
            make(1, FRANK),
            "wrong_owner",
            f"dataset: version 1: signed by {FRANK.owner}, want owner {DORA.owner}",
        ),
        (append(make(2), FRANK), "wrong_owner", "dataset: version 3: signed by"),
        (with_record(LOG, 0, file_hash=LOG.records[0].file_hash.upper()), "not_canonical", "lower-case"),
        (with_record(LOG, 2, signature=LOG.records[2].signature.upper()), "not_canonical", "lower-case"),
        (
            with_record(LOG, 2, signature=high_s(bytes.fromhex(LOG.records[2].signature)).hex()),
            "not_canonical",
            "high S",
        ),
        (
            with_record(LOG, 2, signature=LOG.records[2].signature[:-2] + "1b"),
            "not_canonical",
            "ends in 27",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_log_of_format_1_is_refused_in_the_words_of_its_format(log, reason, text):
    fault = refusal(log)
    assert fault.reason == reason and text in fault.message


def test_a_previous_signature_that_cannot_be_hashed_is_malformed():
    for prev, text in (("0" * 256, "prevSig too long (256 > 255)"), ("\u00e9", "ASCII")):
        record = replace(LOG.records[0], prev_sig=prev)
        with pytest.raises(LogError, match=r".") as caught:
            _ = record.digest
        assert caught.value.reason == "malformed" and text in caught.value.message


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2), st.sampled_from(["manifest_hash", "file_hash", "size", "signature"]), st.data())
def test_what_a_pinned_owner_did_not_sign_is_refused(index, field, data):
    value = getattr(LOG.records[index], field)
    if field == "size":
        other = data.draw(st.integers(0, 2**63 - 1).filter(lambda size: size != value))
    else:
        at = data.draw(st.integers(0, len(value) - 1))
        other = value[:at] + data.draw(st.sampled_from("0123456789abcdef").filter(lambda c: c != value[at]))
        other += value[at + 1 :]
    assert refusal(with_record(LOG, index, **{field: other})).reason in {
        "wrong_owner",
        "bad_signature",
        "chain_break",
        "not_canonical",
    }


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(3)))
def test_records_that_were_moved_or_removed_are_refused(order):
    if list(order) != [0, 1, 2]:
        assert refusal(replace(LOG, records=tuple(LOG.records[i] for i in order))).reason == "non_monotonic"
    assert refusal(replace(LOG, records=LOG.records[1:])).reason == "non_monotonic"
    renumbered = tuple(replace(r, seq=i + 1) for i, r in enumerate(LOG.records[1:]))
    assert refusal(replace(LOG, records=renumbered)).reason == "chain_break"


def test_without_a_pin_all_records_have_one_signer_and_the_result_says_that_there_was_no_pin():
    assert not verifying.verify(LOG, owner=None).pinned
    assert refusal(append(make(2), FRANK), None).reason == "mixed_signers"
    assert refusal(LOG, ALICE.owner).reason == "wrong_owner"


def test_format_1_does_not_pass_as_format_2_nor_the_other_way():
    new = wire.log_json(make_log(((DORA, 1),)))
    for raw in (document(LOG) | {"version": 2}, document(LOG) | {"version": 1}, new | {"version": 1}):
        with pytest.raises(LogError) as caught:
            wire.read_any_log(json.dumps(raw))
        assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": "\x1b[2J"},
        {"timestamp": None},
        {"size": 1.0},
        {"seq": True},
        {"seq": "1"},
        {"signature": "0" * 1025},
        {"extra": 1},
    ],
)
def test_what_cannot_be_a_record_is_malformed(change):
    raw = document(LOG)
    raw["versions"][1] |= change
    with pytest.raises(LogError) as caught:
        wire.read_any_log(json.dumps(raw))
    assert caught.value.reason == "malformed"


def test_the_id_of_the_document_is_compared_though_format_1_does_not_sign_it():
    with pytest.raises(LogError) as caught:
        verifying.verify(LOG, owner=DORA.owner, id="another")
    assert caught.value.reason == "wrong_id"
