"""A version log that its owner did not write exactly so is refused, with the right reason."""

import json
from dataclasses import replace

import pytest
from dataset_logs import ALICE, BOB, DORA, EVE, FRANK, NOW, cut, high_s, make_log, sign, sign_head, with_entry
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tensorage.dataset import anchor, identity, verifying, wire
from tensorage.dataset.entry import Head, Signed, SignedHead
from tensorage.dataset.errors import HeadError, LogError
from tensorage.dataset.log import Log, verify_log
from tensorage.dataset.memory import check_head, remember

SIGNERS = {signer.owner: signer for signer in (ALICE, BOB, DORA, FRANK, EVE)}
OWNERS = (ALICE, BOB, DORA, FRANK)


@st.composite
def logs(draw, least=1, signers=OWNERS):
    """A log that holds, of `least` to 8 versions by one to three keys."""
    turns = draw(st.lists(st.sampled_from(signers), min_size=1, max_size=3, unique_by=lambda s: s.owner))
    counts = [draw(st.integers(1, 2)) for _ in turns]
    counts[0] = max(counts[0], least - sum(counts[1:]))
    return make_log(list(zip(turns, counts, strict=True)))


def refusal(log: Log, owner: str | None = None, **options) -> LogError:
    with pytest.raises(LogError) as caught:
        verify_log(log, owner=owner, verify=identity.verify, **options)
    return caught.value


def newest(log: Log):
    return SIGNERS[log.owner]


@settings(max_examples=25, deadline=None)
@given(logs(), st.data())
def test_a_log_that_its_owner_wrote_holds_for_every_key_of_it_and_survives_the_wire(log, data):
    head = sign_head(log, newest(log))
    assert wire.read_log(json.dumps(wire.log_json(log, head))) == (log, head)
    for pin in log.keys:
        verified = verify_log(log, owner=pin, verify=identity.verify, id=log.id)
        assert verified.pinned and verified.owner == log.owner and verified.root_owner == log.keys[0]
        assert (verified.seq, verified.entry_hash) == (len(log.entries), log.head.hash)
    assert not verify_log(log, owner=None, verify=identity.verify).pinned
    assert refusal(log, EVE.owner).reason == "wrong_owner"
    assert check_head(remember(log, NOW), log, head, NOW, verify=identity.verify) == remember(log, NOW)


@settings(max_examples=40, deadline=None)
@given(logs(least=2), st.data())
def test_an_altered_version_is_refused_for_what_was_altered(log, data):
    index = data.draw(st.integers(0, len(log.entries) - 1))
    entry = log.entries[index].entry
    flip = bytes([entry.file_hash[0] ^ 1]) + entry.file_hash[1:]
    field, value, reason = data.draw(
        st.sampled_from(
            [
                ("id", "other", "wrong_id"),
                ("seq", entry.seq + 1, "non_monotonic"),
                ("prev_hash", flip, "chain_break"),
                ("manifest_hash", flip, "bad_signature"),
                ("file_hash", flip, "bad_signature"),
                ("chunk_root", flip, "bad_signature"),
                ("size", entry.size + 1, "bad_signature"),
                ("time", entry.time + 1, "bad_signature"),
            ]
        )
    )
    altered = with_entry(log, index, Signed(replace(entry, **{field: value}), log.entries[index].signature))
    for pin in (None, log.owner):
        assert refusal(altered, pin).reason == reason
        assert refusal(altered, pin).seq == (value if field == "seq" else entry.seq)


@settings(max_examples=25, deadline=None)
@given(logs(least=2), st.data())
def test_a_version_by_a_stranger_is_refused_however_it_is_signed(log, data):
    index = data.draw(st.integers(1, len(log.entries) - 1))
    entry = log.entries[index].entry
    foreign = replace(entry, owner=EVE.owner)
    assert refusal(with_entry(log, index, sign(foreign, EVE))).reason == "mixed_signers"
    if log.entries[index].entry.owner.startswith("5"):
        assert refusal(with_entry(log, index, Signed(entry, EVE.sign(entry.hash)))).reason == "bad_signature"
    else:
        forged = Signed(entry, FRANK.sign(bytes(32)))
        assert refusal(with_entry(log, index, forged)).reason == "bad_signature"


@settings(max_examples=40, deadline=None)
@given(logs(least=3), st.data())
def test_versions_that_were_moved_removed_or_doubled_are_refused(log, data):
    order = data.draw(st.permutations(range(len(log.entries))))
    moved = replace(log, entries=tuple(log.entries[i] for i in order))
    if list(order) != sorted(order):
        assert refusal(moved, log.owner).reason == "non_monotonic"
    gone = data.draw(st.integers(0, len(log.entries) - 2))
    less = replace(log, entries=(*log.entries[:gone], *log.entries[gone + 1 :]))
    assert refusal(less).reason in {"non_monotonic", "bad_rotation"}
    doubled = replace(log, entries=(*log.entries[: gone + 1], *log.entries[gone:]))
    assert refusal(doubled).reason == "non_monotonic"


@settings(max_examples=25, deadline=None)
@given(logs(least=2, signers=(ALICE,)), st.data())
def test_versions_that_were_renumbered_to_close_a_gap_are_refused(log, data):
    gone = data.draw(st.integers(0, len(log.entries) - 2))
    rest = [*log.entries[:gone], *log.entries[gone + 1 :]]
    entries = tuple(Signed(replace(s.entry, seq=i + 1), s.signature) for i, s in enumerate(rest))
    assert refusal(replace(log, entries=entries)).reason == "chain_break"


@settings(max_examples=25, deadline=None)
@given(logs())
def test_a_log_is_no_log_of_another_dataset(log):
    document = wire.log_json(log) | {"id": "another"}
    replayed, _ = wire.read_log(json.dumps(document))
    assert refusal(replayed, log.owner).reason in {"bad_signature", "bad_rotation"}
    assert refusal(replayed, log.owner, id=log.id).reason == "wrong_id"
    assert refusal(replace(log, id="another"), log.owner).reason == "wrong_id"


@settings(max_examples=25, deadline=None)
@given(logs(signers=(DORA, FRANK)), st.data())
def test_the_second_form_of_a_signature_is_refused_wherever_it_stands(log, data):
    index = data.draw(st.integers(0, len(log.entries) - 1))
    signed = log.entries[index]
    assert refusal(with_entry(log, index, Signed(signed.entry, high_s(signed.signature)))).reason == (
        "not_canonical"
    )
    for field in ("signature", "new_signature"):
        for rotated in log.rotations:
            other = replace(rotated, **{field: high_s(getattr(rotated, field))})
            assert refusal(replace(log, rotations=(other,))).reason == "not_canonical"
    head = sign_head(log, newest(log))
    with pytest.raises(HeadError) as caught:
        other_head = SignedHead(head.head, high_s(head.signature))
        check_head(None, log, other_head, NOW, verify=identity.verify)
    assert caught.value.reason == "bad_signature"


def leaves(value, path=()):
    """Every place in a JSON document where something stands that is no list or object."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, (*path, name))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from leaves(part, (*path, index))
    else:
        yield path


def put(document, path, change):
    """A copy of the document with `change` made to what stands at `path`; returns what it became, too."""
    copy = json.loads(json.dumps(document))
    place = copy
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = change(place[path[-1]])
    return copy, place[path[-1]]


def check_document(document, owner):
    """All that a buyer checks of what a seller shows."""
    log, head = wire.read_log(json.dumps(document))
    verify_log(log, owner=owner, verify=identity.verify, id="sft-demo")
    check_head(None, log, head, NOW, verify=identity.verify)


@settings(max_examples=150, deadline=None)
@given(logs(least=2), st.data())
def test_no_single_value_of_a_document_can_be_altered(log, data):
    document = wire.log_json(log, sign_head(log, newest(log)))
    check_document(document, log.root_owner)
    path = data.draw(st.sampled_from(list(leaves(document))))

    def change(value):
        if isinstance(value, int):
            return data.draw(
                st.one_of(
                    st.integers(-1, 2**65), st.sampled_from([None, True, False, 1.0, str(value), [value]])
                )
            )
        at = data.draw(st.integers(0, len(value) - 1))
        letter = data.draw(
            st.one_of(st.sampled_from("0123456789abcdefABCDEFx \n\0"), st.characters(codec="utf-8"))
        )
        return data.draw(st.sampled_from([value[:at] + letter + value[at + 1 :], value + letter, value[:-1]]))

    altered, value = put(document, path, change)
    original = document
    for part in path:
        original = original[part]
    assume(type(value) is not type(original) or value != original)
    with pytest.raises((LogError, HeadError)) as caught:
        check_document(altered, log.root_owner)
    assert caught.value.reason


@settings(max_examples=60, deadline=None)
@given(logs(), st.data())
def test_upper_case_is_refused_wherever_it_stands(log, data):
    document = wire.log_json(log, sign_head(log, newest(log)))
    hexed = [path for path in leaves(document) if path[-1] not in {"id", "seq", "size", "version"}]
    path = data.draw(st.sampled_from(hexed))
    altered, value = put(document, path, lambda text: text.upper() if isinstance(text, str) else text)
    assume(altered != document)
    with pytest.raises(LogError) as caught:
        check_document(altered, log.root_owner)
    assert caught.value.reason == (
        "malformed" if value.startswith("5") and len(value) == 48 else "not_canonical"
    )


@settings(max_examples=25, deadline=None)
@given(logs(least=2), st.data())
def test_a_cut_tail_holds_and_is_refused_by_memory_by_time_and_by_the_chain_each_alone(log, data):
    """Each witness without the other two: no memory, a statement that is good, nothing on chain."""
    seq = data.draw(st.integers(1, len(log.entries) - 1))
    short = cut(log, seq)
    assert verify_log(short, owner=log.root_owner, verify=identity.verify).seq == seq
    then = sign_head(short, newest(short))

    with pytest.raises(HeadError) as by_memory:
        check_head(remember(log, NOW), short, then, NOW, verify=identity.verify)
    assert by_memory.value.reason == "lower_seq"

    assert check_head(None, short, then, then.head.expires - 1, verify=identity.verify).seq == seq
    with pytest.raises(HeadError) as by_time:
        check_head(None, short, then, then.head.expires, verify=identity.verify)
    assert by_time.value.reason == "expired"

    heads = {log.id: (len(log.entries), log.head.hash), "another": (1, bytes(32))}
    with pytest.raises(HeadError) as by_chain:
        anchor.check_anchor(short, anchor.prove(heads, log.id), anchor.anchor_root(heads))
    assert by_chain.value.reason == "cut_tail"


@settings(max_examples=25, deadline=None)
@given(logs(least=2), st.data())
def test_another_history_is_refused_by_memory_and_by_the_chain(log, data):
    seq = data.draw(st.integers(1, len(log.entries)))
    signer = SIGNERS[log.entries[seq - 1].entry.owner]
    forked = sign(replace(log.entries[seq - 1].entry, size=1), signer)
    short = cut(log, seq)
    other = with_entry(short, seq - 1, forked)
    verify_log(other, owner=log.root_owner, verify=identity.verify)
    with pytest.raises(HeadError) as by_memory:
        check_head(remember(short, NOW), other, sign_head(other, signer), NOW, verify=identity.verify)
    assert by_memory.value.reason == "other_hash" and by_memory.value.shown == forked

    heads = {log.id: (seq, short.head.hash)}
    with pytest.raises(HeadError) as by_chain:
        anchor.check_anchor(other, anchor.prove(heads, log.id), anchor.anchor_root(heads))
    assert by_chain.value.reason == "anchor_mismatch"


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9]{0,5}[x-z]", fullmatch=True), st.integers(1, 2**53 - 1), min_size=1
    )
)
def test_every_head_is_proved_under_the_anchored_root_and_no_other_is(seqs):
    heads = {id: (seq, bytes([7]) * 32) for id, seq in seqs.items()}
    root = anchor.anchor_root(heads)
    assert anchor.root_in(anchor.payload(root)) == root and len(anchor.payload(root)) <= 128
    log = make_log()
    for id in heads:
        proof = wire.read_anchor(json.dumps(wire.anchor_json(anchor.prove(heads, id))))
        assert proof == anchor.prove(heads, id)
        with pytest.raises(HeadError) as caught:
            anchor.check_anchor(log, proof, root)
        assert caught.value.reason == "anchor_mismatch"
    with_log = heads | {log.id: (1, log.entries[0].entry.hash)}
    proof = anchor.prove(with_log, log.id)
    assert anchor.check_anchor(log, proof, anchor.anchor_root(with_log)) == 1
    for wrong in (
        replace(proof, seq=2),
        replace(proof, entry_hash=bytes(32)),
        replace(proof, index=proof.index + 1),
        replace(proof, index=-1),
        replace(proof, size=2**70),
        replace(proof, seq=2**70),
        replace(proof, seq=-1),
        replace(proof, path=(*proof.path, bytes(32))),
        replace(proof, path=(b"", *proof.path[1:])),
    ):
        with pytest.raises(HeadError) as caught:
            anchor.check_anchor(log, wrong, anchor.anchor_root(with_log))
        assert caught.value.reason == "anchor_mismatch"


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_else_arrives_is_refused_as_such(raw):
    for read in (wire.read_any_log, wire.read_log, wire.read_head, wire.read_offer, wire.read_anchor):
        with pytest.raises(LogError):
            read(raw)


@settings(max_examples=30, deadline=None)
@given(logs(signers=(DORA,), least=1))
def test_both_formats_are_verified_in_one_place(log):
    assert verifying.verify(log, owner=DORA.owner).version == 2
    with pytest.raises(LogError, match="not of 'x'"):
        verifying.verify(log, owner=DORA.owner, id="x")


@settings(max_examples=25, deadline=None)
@given(logs(least=1), st.integers(0, 2**53 - 1), st.integers(1, 86_400))
def test_a_statement_is_believed_from_its_issue_to_its_end_and_not_at_other_times(log, issued, life):
    assume(issued + life < 2**53)
    head = sign_head(log, newest(log), issued=issued, life=life)
    for now, reason in (
        (issued - 301, "not_yet"),
        (issued - 300, None),
        (issued + life - 1, None),
        (issued + life, "expired"),
    ):
        if reason is None:
            check_head(None, log, head, now, verify=identity.verify)
        else:
            with pytest.raises(HeadError) as caught:
                check_head(None, log, head, now, verify=identity.verify)
            assert caught.value.reason == reason


@settings(max_examples=25, deadline=None)
@given(logs(least=2), st.data())
def test_no_statement_but_the_newest_keys_about_this_log_is_believed(log, data):
    good = sign_head(log, newest(log)).head
    flip = bytes([good.entry_hash[0] ^ 1]) + good.entry_hash[1:]

    def signed(head: Head, signer) -> SignedHead:
        return SignedHead(head, signer.sign(head.hash))

    cases = [
        (signed(replace(good, seq=good.seq + 1), newest(log)), "head_mismatch"),
        (signed(replace(good, entry_hash=flip), newest(log)), "head_mismatch"),
        (signed(replace(good, id="another"), newest(log)), "head_mismatch"),
        (signed(replace(good, owner=EVE.owner), EVE), "head_mismatch"),
        (signed(replace(good, expires=good.issued + 86_401), newest(log)), "too_long"),
        (SignedHead(good, newest(log).sign(bytes(32))), "bad_signature"),
        (SignedHead(good, b""), "bad_signature"),
        (None, "unsigned_head"),
    ]
    cases += [(signed(replace(good, owner=key), SIGNERS[key]), "retired_owner") for key in log.keys[:-1]]
    for head, reason in cases:
        with pytest.raises(HeadError) as caught:
            check_head(None, log, head, NOW, verify=identity.verify)
        assert caught.value.reason == reason
