"""What a gateway answers to a client that puts a file is believed only where it is what was asked for."""

from dataclasses import replace

import pytest

from tensorage.chain.address import ss58
from tensorage.chain.types import Endpoint
from tensorage.client.catalog import Catalog, FileRow
from tensorage.client.coder import Coder
from tensorage.client.gateway import Gateway, GatewayError
from tensorage.client.placing import Placer
from tensorage.coding.keys import FileKeys
from tensorage.coding.layout import Stripe
from tensorage.ticket import SignedTicket, Ticket
from tensorage.transport.dendrite import Dendrite, Peer
from tensorage.transport.file_calls import MinerCalls
from tensorage.transport.file_messages import ShardWanted

KEYS = FileKeys.of(bytes(32))
VALIDATOR, MINER, OTHER = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
ROOT, EXPIRES = bytes([4] * 32), 2 * 10**9
GOOD = Ticket(bytes(32), 7, VALIDATOR, KEYS.access.public_key, MINER, ROOT, 16, EXPIRES, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires": EXPIRES - 1},
        {"shard_root": bytes(32)},
        {"leaves": 32},
        {"miner": OTHER},
        {"client": OTHER},
        {"validator": OTHER},
        {"netuid": 8},
        {"genesis": OTHER},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_ticket_for_anything_else_than_was_asked_for_is_refused(wrong, tmp_path):
    row = FileRow(
        id=KEYS.file_id,
        name="a",
        key=bytes(32),
        kind="file",
        state="uploading",
        data_shards=1,
        parity_shards=0,
        created=0,
        expires=EXPIRES,
        genesis=bytes(32),
        netuid=7,
        gateway_hotkey=ss58(VALIDATOR),
        gateway_ip="127.0.0.1",
        gateway_port=1,
    )
    async with Dendrite(None) as dendrite:
        gateway = Gateway(dendrite, Peer(ss58(VALIDATOR), Endpoint("127.0.0.1", 1)), None)
        with Catalog(tmp_path / "files.sqlite") as catalog, Coder(KEYS.spread, row.id) as coder:
            placer = Placer(
                row,
                KEYS,
                gateway,
                MinerCalls(dendrite),
                catalog,
                coder,
                least=1,
                progress=lambda stripe: None,
            )
            asked = Stripe(0, 0, 16, 1), ShardWanted(number=0, miner=ss58(MINER), root=ROOT)
            placer._check(*asked, SignedTicket(GOOD, bytes(64)))
            with pytest.raises(GatewayError, match="for another"):
                placer._check(*asked, SignedTicket(replace(GOOD, **wrong), bytes(64)))
