"""The published vectors: bytes that another implementation of the protocol gets too."""

import json
from pathlib import Path

import pytest

from tensorage.conformance import vector
from tensorage.errors import UsageError

VECTORS = Path(__file__).parents[1] / "vectors"


def ingredients() -> dict:
    """What the published dev vector is made of; `tensorage conformance --help` names this file."""
    return json.loads((VECTORS / "pos-v1-dev.input.json").read_text())


def test_the_published_vector_follows_from_its_ingredients():
    assert vector(ingredients()) == json.loads((VECTORS / "pos-v1-dev.json").read_text())


def test_sectors_stand_in_ascending_order_however_they_are_given():
    shuffled = ingredients() | {"sectors": [2, 0, 1]}
    assert vector(shuffled) == vector(ingredients())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"genesis": "00"}, "genesis"),
        ({"miner": "AB" * 32}, "miner"),
        ({"profile": 2}, "profile"),
        ({"sectors": []}, "sectors"),
        ({"sectors": [3, 3]}, "ascend"),
        ({"netuid": 1 << 16}, "netuid"),
        ({"challenge": {"block_hash": "00" * 32, "round": 1 << 32, "hops": 1}}, "round"),
    ],
)
def test_an_input_that_is_wrong_is_refused_by_name(change, named):
    with pytest.raises(UsageError, match=named):
        vector(ingredients() | change)
