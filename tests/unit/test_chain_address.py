"""SS58 as the SDK reads and writes it, and only in its one canonical spelling."""

import bittensor_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage.chain.address import public_key, ss58


@given(st.binary(min_size=32, max_size=32))
def test_addresses_are_those_of_the_sdk(key):
    address = ss58(key)
    assert address == bittensor_core.ss58_encode(key, 42)
    assert public_key(address) == key == bittensor_core.ss58_decode(address)


def test_the_smallest_and_the_largest_key_have_an_address():
    for key in (bytes(32), b"\xff" * 32):
        assert public_key(ss58(key)) == key


@given(st.binary(min_size=32, max_size=32), st.integers(0, 47), st.characters(max_codepoint=0x250))
def test_an_address_with_a_changed_letter_is_refused(key, place, letter):
    address = ss58(key)
    changed = address[:place] + letter + address[place + 1 :]
    if changed != address:
        with pytest.raises(ValueError, match="address"):
            public_key(changed)


@pytest.mark.parametrize("text", ["", "5", "1" * 48, "z" * 48, "0x" + "00" * 32, "5" * 49])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="address"):
        public_key(text)
