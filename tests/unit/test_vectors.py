"""The published vectors: bytes that another implementation of the protocol gets too."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tensorage.cli import conformance_app
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
    "published", json.loads((VECTORS / "dataset-log.json").read_text()), ids=lambda v: v["input"]["kind"]
)
def test_the_published_vectors_of_a_version_log_follow_from_their_ingredients(published, tmp_path):
    assert vector(published["input"]) == published["output"]
    path = tmp_path / "input.json"
    path.write_text(json.dumps(published["input"]))
    printed = CliRunner().invoke(conformance_app, [str(path)])
    assert printed.exit_code == 0 and json.loads(printed.stdout) == published["output"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "dataset-v3"}, "dataset-v3"),
        ({"kind": ["dataset-v2"]}, "kind"),
        ({"id": "../etc"}, "id"),
        ({"owner": "0x" + "A" * 40}, "owner"),
        ({"entries": []}, "entries"),
        ({"private_key": "00"}, "private_key"),
    ],
)
def test_an_input_of_a_version_log_that_is_wrong_is_refused_by_name(change, named):
    published = json.loads((VECTORS / "dataset-log.json").read_text())[1]["input"]
    with pytest.raises(UsageError, match=named):
        vector(published | change)


@pytest.mark.parametrize("key", ["00" * 32, "ff" * 32])
def test_a_number_that_is_no_key_is_refused(key):
    published = json.loads((VECTORS / "dataset-log.json").read_text())[0]["input"]
    with pytest.raises(UsageError, match="secp256k1"):
        vector(published | {"private_key": key})


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
