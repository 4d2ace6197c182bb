"""Links of people who mean harm: what they name is checked before anything is dialled."""

import dataclasses

import pytest

from tensorage.chain.address import ss58
from tensorage.client.catalog import Catalog, FileRow
from tensorage.client.known import known_file
from tensorage.coding.keys import FileKeys
from tensorage.coding.manifest import Gateway, Manifest, ShardAt, StripeAt
from tensorage.errors import ProofError, UsageError
from tensorage.ticket import SignedTicket, Ticket

KEY, MINER, GENESIS = bytes(range(32)), bytes([7] * 32), bytes(32)
NO_ADDRESS = "5" * 48  # letters of an address, without its checksum


def manifest(miner: str = ss58(MINER), gateway: str = ss58(bytes(32))) -> Manifest:
    keys = FileKeys.of(KEY)
    ticket = Ticket(GENESIS, 7, bytes(32), keys.access.public_key, MINER, bytes(32), 16, 10**9, 1)
    shard = ShardAt(0, SignedTicket(ticket, bytes(64)), miner, "192.0.2.1", 8091)
    return Manifest(
        id=keys.file_id,
        name="a",
        size=5,
        sha256=bytes(32),
        data_shards=1,
        parity_shards=0,
        created=10**9,
        expires=10**9,
        genesis=GENESIS,
        netuid=7,
        gateway=Gateway(gateway, "192.0.2.2", 8091),
        stripes=(StripeAt(0, 16, (shard,)),),
    )


def test_a_link_is_taken_for_the_file_that_it_names(tmp_path):
    link = tmp_path / "a.link"
    link.write_bytes(manifest().link(KEY))
    known = known_file(None, str(link))
    assert (known.manifest, known.key, known.row) == (manifest(), KEY, None)


@pytest.mark.parametrize(
    "wrong", [{"miner": NO_ADDRESS}, {"gateway": NO_ADDRESS}, {"miner": ss58(bytes(32))}], ids=str
)
def test_a_link_with_a_hotkey_that_is_none_or_another_s_is_refused_in_one_line(wrong, tmp_path):
    link = tmp_path / "a.link"
    link.write_bytes(manifest(**wrong).link(KEY))
    with pytest.raises(ProofError, match="the link names"):
        known_file(None, str(link))


def test_so_is_one_that_gives_a_miner_two_hotkeys(tmp_path):
    made = manifest()
    first = made.stripes[0].shards[0]
    second = dataclasses.replace(first, number=1, hotkey=ss58(bytes(32)))
    two = dataclasses.replace(made, parity_shards=1, stripes=(StripeAt(0, 16, (first, second)),))
    link = tmp_path / "a.link"
    link.write_bytes(two.link(KEY))
    with pytest.raises(ProofError, match="two hotkeys"):
        known_file(None, str(link))


def test_a_local_file_that_is_no_link_is_named_with_a_remedy(tmp_path):
    other = tmp_path / "photo.jpg"
    other.write_bytes(b"no link")
    with pytest.raises(ProofError, match=r"photo\.jpg.*tensorage ls"):
        known_file(None, str(other))


@pytest.mark.parametrize("source_is_here", [False, True])
def test_a_name_whose_upload_is_not_complete_is_said_to_be_that(source_is_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source_is_here:
        (tmp_path / "a").write_bytes(b"what is being put")
    with Catalog(tmp_path / "files.sqlite") as catalog:
        catalog.begin(
            FileRow(
                id=bytes(16),
                name="a",
                key=KEY,
                kind="file",
                state="uploading",
                data_shards=1,
                parity_shards=0,
                created=1,
                expires=10**10,
                genesis=GENESIS,
                netuid=7,
                gateway_hotkey=ss58(MINER),
                gateway_ip="192.0.2.2",
                gateway_port=8091,
            )
        )
        with pytest.raises(UsageError, match="not stored completely"):
            known_file(catalog, "a")
