"""RFC 6962 trees: what holds for every tree, and what no proof can get past."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage import merkle
from tensorage.errors import ProofError

HASHES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70)


def recursive_root(hashes: list[bytes]) -> bytes:
    """The definition of RFC 6962 section 2.1, word by word."""
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\1" + recursive_root(hashes[:k]) + recursive_root(hashes[k:])).digest()


@given(HASHES)
def test_the_root_is_that_of_the_definition(hashes):
    assert merkle.root(hashes) == recursive_root(hashes)


@given(HASHES, st.data())
def test_every_path_leads_to_the_root(hashes, data):
    index = data.draw(st.integers(0, len(hashes) - 1))
    path = merkle.path(hashes, index)
    assert len(path) == merkle.path_length(index, len(hashes))
    assert merkle.root_from_path(hashes[index], index, len(hashes), path) == merkle.root(hashes)


@given(HASHES, st.data())
def test_a_path_proves_no_other_leaf_and_no_other_place(hashes, data):
    index = data.draw(st.integers(0, len(hashes) - 1))
    path, root = merkle.path(hashes, index), merkle.root(hashes)
    other = data.draw(st.binary(min_size=32, max_size=32).filter(lambda leaf: leaf != hashes[index]))
    assert merkle.root_from_path(other, index, len(hashes), path) != root
    place = data.draw(st.integers(0, len(hashes) - 1))
    if hashes[place] != hashes[index] and merkle.path_length(place, len(hashes)) == len(path):
        assert merkle.root_from_path(hashes[index], place, len(hashes), path) != root


@given(HASHES, st.data())
def test_a_path_of_another_length_is_refused(hashes, data):
    index = data.draw(st.integers(0, len(hashes) - 1))
    path = merkle.path(hashes, index)
    with pytest.raises(ProofError, match="hashes, not"):
        merkle.root_from_path(hashes[index], index, len(hashes), [*path, bytes(32)])
    if path:
        with pytest.raises(ProofError, match="hashes, not"):
            merkle.root_from_path(hashes[index], index, len(hashes), path[:-1])


@given(st.integers(0, 6), st.data())
def test_an_inner_level_has_the_root_of_the_leaves(height, data):
    leaves = data.draw(st.lists(st.binary(min_size=32, max_size=32), min_size=64, max_size=64))
    assert merkle.root(merkle.level(leaves, height)) == merkle.root(leaves)


def test_the_known_roots_of_the_certificate_transparency_log_come_out():
    # Inputs and roots as listed in the tests of RFC 6962 implementations.
    inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    hashes = [merkle.leaf_hash(bytes.fromhex(text)) for text in inputs]
    assert {size: merkle.root(hashes[:size]).hex() for size in roots} == roots
