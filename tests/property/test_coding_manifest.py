"""Manifests and links, for arbitrary files: they come back as they were, and no bit of them may differ."""

import hashlib
import hmac
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorage.coding.keys import FileKeys
from tensorage.coding.layout import stripes
from tensorage.coding.manifest import (
    Gateway,
    Manifest,
    ManifestError,
    ShardAt,
    StripeAt,
    check_name,
)
from tensorage.coding.stream import MOST_BYTES, ciphertext_size
from tensorage.errors import ProofError
from tensorage.ticket import SignedTicket, Ticket

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
GENESIS = bytes(range(32))
KEY = bytes(range(1, 33))


def manifest(key: bytes, name: str, size: int, k: int, m: int, present: set[int], where=("10.0.0.1", 80)):
    """A file whose stripes have those shards of `present` that there are."""
    keys = FileKeys.of(key)

    def shard(leaves: int, number: int) -> ShardAt:
        ticket = Ticket(
            GENESIS, 7, bytes(32), keys.access.public_key, bytes(32), bytes(32), leaves, 10**9, number
        )
        return ShardAt(number, SignedTicket(ticket, bytes(64)), HOTKEY, *where)

    cut = stripes(ciphertext_size(size), k)
    return Manifest(
        id=keys.file_id,
        name=name,
        size=size,
        sha256=bytes(32),
        data_shards=k,
        parity_shards=m,
        created=10**9,
        expires=2 * 10**9,
        genesis=GENESIS,
        netuid=7,
        gateway=Gateway(HOTKEY, "::1", 8091),
        stripes=tuple(
            StripeAt(s.number, s.leaves, tuple(shard(s.leaves, n) for n in range(k + m) if n in present))
            for s in cut
        ),
    )


names = (
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/"), min_size=1
        ).filter(lambda part: part not in {".", ".."}),
        min_size=1,
        max_size=3,
    )
    .map("/".join)
    .filter(lambda name: len(name) <= 1024)
)
files = st.fixed_dictionaries(
    {
        "key": st.binary(min_size=32, max_size=32),
        "name": names,
        "size": st.integers(0, 20 << 20),
        "k": st.integers(1, 4),
        "m": st.integers(0, 8),
        "present": st.sets(st.integers(0, 11)),
        "where": st.sampled_from([("192.0.2.1", 1), ("2001:db8::1", 65535), (None, None)]),
    }
)


@given(files)
@settings(deadline=None)
def test_a_manifest_and_a_link_come_back_as_they_were(file):
    made, key = manifest(**file), file["key"]
    assert Manifest.parse(made.seal(key), key) == made
    assert Manifest.parse_link(made.link(key)) == (made, key)


SMALL = manifest(KEY, "a/b", 3, 2, 1, {2})


@pytest.mark.parametrize("kind", ["manifest", "link"])
def test_any_flipped_bit_is_refused(kind):
    data = SMALL.seal(KEY) if kind == "manifest" else SMALL.link(KEY)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProofError):
            Manifest.parse(bytes(changed), KEY) if kind == "manifest" else Manifest.parse_link(bytes(changed))


@given(st.integers(0, 10**4))
def test_a_manifest_that_is_cut_or_has_something_behind_it_is_refused(end):
    data = SMALL.seal(KEY)
    for wrong in (data[: end % len(data)], data + b" ", data + data, b" " + data):
        with pytest.raises(ManifestError):
            Manifest.parse(wrong, KEY)


def test_a_manifest_of_another_key_and_a_link_for_a_manifest_are_refused():
    with pytest.raises(ManifestError):
        Manifest.parse(SMALL.seal(KEY), KEY[::-1])
    with pytest.raises(ManifestError):
        Manifest.parse(SMALL.link(KEY), KEY)
    with pytest.raises(ManifestError):
        Manifest.parse_link(SMALL.seal(KEY))
    with pytest.raises(ManifestError, match="not that of the file"):
        SMALL.seal(KEY[::-1])


def sealed_by_a_stranger(change) -> bytes:
    """A link whose manifest was changed by somebody who has the key, and can write its mac."""
    outer = json.loads(SMALL.link(KEY))
    change(outer["manifest"])
    body = json.dumps(outer["manifest"], sort_keys=True, separators=(",", ":")).encode()
    outer["mac"] = hmac.digest(FileKeys.of(KEY).manifest, body, "sha256").hex()
    return json.dumps(outer, sort_keys=True, separators=(",", ":")).encode()


def shard_of(body):
    return body["stripes"][0]["shards"][0]


WRONG = {
    "a way out of the directory": lambda body: body.update(name="../a"),
    "a size that is too large for its stripes": lambda body: body.update(size=1 << 40),
    "no kind of file": lambda body: body.update(kind="link"),
    "a size that no file has": lambda body: body.update(size=MOST_BYTES + 1),
    "a number that is a boolean": lambda body: body.update(netuid=True),
    "a number that is a fraction": lambda body: body.update(size=3.0),
    "no data shards": lambda body: body.update(data_shards=0),
    "more shards than there can be": lambda body: body.update(parity_shards=255),
    "another version": lambda body: body.update(version=2),
    "another segment": lambda body: body.update(segment=1024),
    "a field more": lambda body: body.update(more=1),
    "a field less": lambda body: body.pop("sha256"),
    "no stripes": lambda body: body.update(stripes=[]),
    "a stripe that is no object": lambda body: body.update(stripes=[1]),
    "stripes that are no list": lambda body: body.update(stripes={}),
    "a shard twice": lambda body: body["stripes"][0]["shards"].append(shard_of(body)),
    "a shard out of range": lambda body: shard_of(body).update(number=3),
    "no ticket": lambda body: shard_of(body).update(ticket="00"),
    "half an address": lambda body: shard_of(body).update(port=None),
    "no address": lambda body: shard_of(body).update(ip="example.org"),
    "port 0": lambda body: shard_of(body).update(port=0),
    "no hotkey": lambda body: shard_of(body).update(hotkey="0" * 48),
    "another subnet's tickets": lambda body: body.update(netuid=8),
    "another network's tickets": lambda body: body.update(genesis="11" * 32),
    "no gateway": lambda body: body.update(gateway=None),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_contradicts_itself_is_refused_though_its_mac_is_right(what):
    assert Manifest.parse_link(sealed_by_a_stranger(lambda body: None))[0] == SMALL
    with pytest.raises(ProofError):
        Manifest.parse_link(sealed_by_a_stranger(WRONG[what]))


def test_the_tickets_of_another_file_are_refused():
    other = manifest(KEY[::-1], "a", 3, 2, 1, {0})
    with pytest.raises(ManifestError, match="of another file"):
        replace(SMALL, stripes=other.stripes).seal(KEY)


@pytest.mark.parametrize("text", [b"[" * 10**5, b"{}", b"[]", b"1", b"", b"\xff", b'{"a":NaN}'])
def test_bytes_that_are_no_manifest_are_refused_in_one_way(text):
    with pytest.raises(ManifestError):
        Manifest.parse_link(text)


@pytest.mark.parametrize("crumb", [b"[]", b"{}", b'{"":[]}'])
def test_a_link_that_would_take_many_times_its_size_in_memory_is_refused_unread(crumb, monkeypatch):
    monkeypatch.setattr("json.loads", lambda text: pytest.fail("it was read"))
    crumbs = b",".join([crumb] * 100_000)
    with pytest.raises(ManifestError, match="brackets"):
        Manifest.parse_link(b'{"key":"","mac":"","manifest":[' + crumbs + b'],"tensorage_link":1}')


def test_a_name_may_have_as_many_brackets_as_it_has_characters():
    made = manifest(KEY, "[" * 1024, 3, 2, 1, set())
    assert Manifest.parse_link(made.link(KEY)) == (made, KEY)


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a\nb", "a\0", "\udc80", "x" * 1025]
)
def test_a_name_that_leads_elsewhere_or_cannot_be_shown_is_refused(name):
    with pytest.raises(ManifestError):
        check_name(name)


def test_the_keys_of_a_file_are_those_that_are_written_down():
    extracted = hmac.digest(bytes(32), KEY, "sha256")
    expected = {
        name: hmac.digest(extracted, f"tensorage/file-{name}/v1".encode().ljust(32, b"\0") + b"\1", "sha256")
        for name in ("content", "spread", "access", "manifest")
    }
    keys = FileKeys.of(KEY)
    assert keys.access.seed == expected.pop("access")
    assert {name: getattr(keys, name) for name in expected} == expected
    assert keys.file_id == hashlib.sha256(keys.access.public_key).digest()[:16]


def test_no_secret_is_shown_by_repr():
    keys = FileKeys.of(KEY)
    assert not any(
        secret.hex() in repr(keys) or repr(secret) in repr(keys) for secret in (keys.content, keys.spread)
    )
    with pytest.raises(ValueError, match="32"):
        FileKeys.of(b"short")
