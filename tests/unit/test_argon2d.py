"""The sealing kernel against another implementation of RFC 9106."""

import numpy as np
import pytest
from argon2.low_level import Type, hash_secret_raw

from tensorage import argon2d


def tag(blocks: int, passes: int, password: bytes, salt: bytes, step: int) -> bytes:
    """The tag by our kernel, filling `step` blocks a call."""
    matrix = np.zeros((blocks, argon2d.WORDS), dtype=np.uint64)
    argon2d.start(matrix, password, salt, passes)
    for number in range(passes):
        for first in range(0, blocks, step):
            argon2d.fill(matrix, number, first, min(first + step, blocks))
    return argon2d.finish(matrix)


@pytest.mark.parametrize("blocks", [8, 12, 64, 1000, 4096, 65536])
@pytest.mark.parametrize("passes", [1, 2, 3, 24])
def test_the_tag_is_that_of_the_reference_code(blocks, passes):
    password, salt = b"an id of thirty-two bytes, or so", b"tensorage-sector"
    expected = hash_secret_raw(
        password, salt, time_cost=passes, memory_cost=blocks, parallelism=1, hash_len=32, type=Type.D
    )
    assert tag(blocks, passes, password, salt, step=blocks) == expected


def test_filling_in_pieces_changes_nothing():
    whole = tag(1024, 3, b"password", b"saltsalt", step=1024)
    assert tag(1024, 3, b"password", b"saltsalt", step=7) == whole


@pytest.mark.parametrize("blocks", [4, 9, 10])
def test_a_matrix_that_argon2_does_not_know_is_refused(blocks):
    with pytest.raises(ValueError, match="matrix"):
        argon2d.start(np.zeros((blocks, 128), dtype=np.uint64), b"p", b"saltsalt", 1)
