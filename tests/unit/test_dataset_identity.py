"""Owners and names: one spelling for one key, one form for one signature, and no id that is a path."""

import pytest
from dataset_logs import ALICE, DORA, FRANK, filled, high_s

from tensorage.chain.address import public_key, ss58
from tensorage.dataset import identity
from tensorage.dataset.entry import SECP256K1_ORDER
from tensorage.dataset.identity import EthSigner, kind_of, verify
from tensorage.dataset.names import check_artifact_name, check_id
from tensorage.errors import UsageError

DIGEST = filled("digest")
ETH, SR = DORA.sign(DIGEST), ALICE.sign(DIGEST)


def test_each_kind_of_key_verifies_its_own_signatures_and_no_others():
    assert (kind_of(ALICE.owner), kind_of(DORA.owner)) == ("sr25519", "secp256k1")
    assert verify(ALICE.owner, DIGEST, SR) and verify(DORA.owner, DIGEST, ETH)
    for owner, signature in ((ALICE.owner, SR), (DORA.owner, ETH)):
        other = FRANK.owner if owner == DORA.owner else ss58(filled("x"))
        assert not verify(other, DIGEST, signature)
        assert not verify(owner, filled("other"), signature)
        assert not verify(owner, DIGEST + b"\0", signature)
        assert not verify(owner, b"", signature)
        for bit in range(8 * len(signature)):
            flipped = bytearray(signature)
            flipped[bit // 8] ^= 1 << bit % 8
            assert not verify(owner, DIGEST, bytes(flipped))
        for wrong in (
            b"",
            signature[:-1],
            signature + b"\0",
            bytes(len(signature)),
            b"\xff" * len(signature),
        ):
            assert not verify(owner, DIGEST, wrong)
    assert not verify(DORA.owner, DIGEST, SR) and not verify(ALICE.owner, DIGEST, ETH)


def test_signatures_of_secp256k1_are_deterministic_low_and_in_one_form():
    assert DORA.sign(DIGEST) == ETH and len(ETH) == 65 and ETH[64] in (0, 1)
    assert int.from_bytes(ETH[32:64], "big") <= SECP256K1_ORDER // 2
    assert identity.recover(DIGEST, high_s(ETH)) == DORA.owner
    assert not verify(DORA.owner, DIGEST, high_s(ETH))
    for v in (27, 28, 2, 3, 255):
        assert not verify(DORA.owner, DIGEST, ETH[:64] + bytes([v]))
    r, s = ETH[:32], ETH[32:64]
    beyond = (SECP256K1_ORDER + 1).to_bytes(32, "big")
    for wrong in (bytes(32) + s, r + bytes(32), beyond + s, r + beyond):
        assert identity.recover(DIGEST, wrong + b"\0") is None


@pytest.mark.parametrize(
    "owner",
    [
        "",
        "0x",
        DORA.owner.upper(),
        "0X" + DORA.owner[2:],
        "0x" + DORA.owner[2:].upper(),
        DORA.owner + "0",
        DORA.owner + "\n",
        DORA.owner[2:],
        "0x" + "\uff10" * 40,
        ALICE.owner + " ",
        ALICE.owner + "\n",
        ALICE.owner[:-1],
        ALICE.owner[:-1] + "Z",
        "1" + ALICE.owner,
        ALICE.owner.lower(),
        public_key(ALICE.owner).hex(),
        "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5",  # the same kind of key under another prefix
        "HNZata7iMYWmk5RvZRTiAsSDhV8366zq2YGb3tLH5Upf74F",
        "5" + "\u0431" * 47,
        "x" * 100_000,
    ],
    ids=lambda owner: ascii(owner)[:24],
)
def test_an_owner_id_has_one_spelling(owner):
    with pytest.raises(ValueError, match=r"."):
        kind_of(owner)
    assert not verify(owner, DIGEST, ETH) and not verify(owner, DIGEST, SR)


def test_the_key_for_which_anybody_can_sign_is_nobodys():
    nobody, forged = ss58(bytes(32)), bytes(63) + b"\x80"
    with pytest.raises(ValueError, match="anybody can sign"):
        kind_of(nobody)
    assert not verify(nobody, DIGEST, forged)


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, b"\1" * 31, b"\1" * 33])
def test_a_secret_that_is_no_key_is_refused_and_not_repeated(secret):
    with pytest.raises(ValueError, match="no secp256k1 key") as caught:
        EthSigner(secret)
    assert secret.hex() not in str(caught.value) or not secret


def test_a_signer_signs_digests_only_and_does_not_show_its_key():
    for signer in (ALICE, DORA):
        with pytest.raises(ValueError, match="digest"):
            signer.sign(b"some text")
        assert signer.owner in repr(signer) and len(repr(signer)) < 70


@pytest.mark.parametrize("id", ["a", "0", "sft-demo", "a.b_c-d", "x" * 64, "console", "owner2", "com10"])
def test_an_id_is_a_name_on_every_system(id):
    assert check_id(id) == id


@pytest.mark.parametrize(
    "id",
    [
        *("", "A", "a b", "a/b", "a\\b", "a\n", "a\0", "a%2e", "../x", "x" * 65),
        *("..", "a..b", ".a", "-a", "_a", "a."),
        *("\u00e9", "\u017f", "\u0661", "a\u0301"),
        *("buyer", "owner", "con", "nul", "com1", "con.jsonl", "lpt9.x"),
    ],
    ids=ascii,
)
def test_an_id_that_could_be_something_else_is_refused(id):
    with pytest.raises(UsageError, match="is no dataset id"):
        check_id(id)


def test_an_artifact_is_named_by_one_component_that_prints():
    for name in ("sft.jsonl", "\u00c4rger 1.md", "..a", "-", "x" * 255, "\u00e9" * 127):
        assert check_artifact_name(name) == name
    for name in ("", ".", "..", "a/b", "/", "a\\b", "a\0", "a\n", "\x7f", "\u202ea", "\u2028", "\ud800"):
        with pytest.raises(UsageError):
            check_artifact_name(name)
    for name in ("x" * 256, "\u00e9" * 128):
        with pytest.raises(UsageError, match="255"):
            check_artifact_name(name)
