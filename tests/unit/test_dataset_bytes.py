"""The bytes that an owner signs, put together by hand from docs/datasets-log.md."""

import re
import struct
from hashlib import sha256
from pathlib import Path

from dataset_logs import ALICE, BOB

from tensorage import merkle
from tensorage.dataset.anchor import anchor_root, payload, prove
from tensorage.dataset.entry import Entry, Head, Offer, Rotation
from tensorage.dataset.manifest import File, manifest_hash

PAGE = (Path(__file__).parents[2] / "docs" / "datasets-log.md").read_text()
HASH = bytes.fromhex("0d3780ddf9441703bc0445873c02d7d947c3e7ee0253868b16ec7544e23d8862")


def tagged(name: str) -> bytes:
    return name.encode() + bytes(32 - len(name))


def short(text: str) -> bytes:
    return struct.pack(">B", len(text)) + text.encode()


def long(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def published(name: str) -> str:
    """The hash that the page has for a statement."""
    found = re.search(rf"^\| {name} \|.*`([0-9a-f]{{64}})` \|$", PAGE, re.MULTILINE)
    assert found, name
    return found[1]


def test_a_version():
    entry = Entry("sft-demo", ALICE.owner, 2, HASH, bytes(32), b"\1" * 32, 3 << 20, b"\2" * 32, 1_760_000_300)
    raw = tagged("tensorage/dataset/v2") + short("sft-demo") + short(ALICE.owner) + u64(2) + HASH
    raw += bytes(32) + b"\1" * 32 + u64(3 << 20) + b"\2" * 32 + u64(1_760_000_300)
    assert entry.hash == sha256(raw).digest()


def test_a_rotation():
    rotation = Rotation("sft-demo", ALICE.owner, BOB.owner, 2, HASH, 1_760_000_600)
    raw = tagged("tensorage/dataset/rotation") + short("sft-demo") + short(ALICE.owner) + short(BOB.owner)
    assert rotation.hash == sha256(raw + u64(2) + HASH + u64(1_760_000_600)).digest()
    assert rotation.hash.hex() == published("rotation")


def test_a_head_statement():
    head = Head("sft-demo", ALICE.owner, 2, HASH, 1_760_000_300, 1_760_086_700)
    raw = tagged("tensorage/dataset/head/v1") + short("sft-demo") + short(ALICE.owner) + u64(2) + HASH
    assert head.hash == sha256(raw + u64(1_760_000_300) + u64(1_760_086_700)).digest()
    assert head.hash.hex() == published("head")


def test_an_offer():
    network = "bittensor:" + "00" * 32
    offer = Offer("sft-demo", ALICE.owner, 2, network, "TAO", 10**9, BOB.owner, 1_760_086_700)
    raw = tagged("tensorage/dataset/offer/v1") + short("sft-demo") + short(ALICE.owner) + u64(2)
    raw += long(network) + long("TAO") + (10**9).to_bytes(32, "big") + long(BOB.owner) + u64(1_760_086_700)
    assert offer.hash == sha256(raw).digest()
    assert offer.hash.hex() == published("offer")


def test_an_anchor():
    heads = {"sft-demo": (2, HASH), "a": (1, bytes(32)), "z": (7, b"\7" * 32)}
    leaves = [merkle.leaf_hash(short(id) + u64(seq) + hash) for id, (seq, hash) in sorted(heads.items())]
    root = merkle.node_hash(merkle.node_hash(leaves[0], leaves[1]), leaves[2])
    assert anchor_root(heads) == root and root.hex() == published("anchor")
    assert payload(root) == "tsds1:" + root.hex()
    proof = prove(heads, "sft-demo")
    assert (proof.index, proof.size, proof.path) == (1, 3, (leaves[0], leaves[2]))


def test_a_manifest():
    files = [File("sft.jsonl", 100, b"\1" * 32), File("README.md", 7, b"\2" * 32)]
    assert manifest_hash(files).hex() == published("manifest")


def test_the_page_names_every_domain_tag():
    for name in ("v2", "rotation", "head/v1", "offer/v1"):
        assert f"`tensorage/dataset/{name}`" in PAGE
