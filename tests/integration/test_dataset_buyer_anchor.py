"""verify --anchor: what the owner put on chain, against what a seller shows."""

import asyncio
import json

import pytest
from chain_net import Net
from dataset_shop import Shop, made

from tensorage.chain.wallet import Hotkey
from tensorage.config import run
from tensorage.dataset import wire
from tensorage.dataset.anchor import anchor_root, payload, prove
from tensorage.dataset.buyer.buyer_commands import app
from tensorage.dataset.identity import HotkeySigner


@pytest.fixture
async def net(tmp_path):
    async with Net(tmp_path / "devnet.sqlite").producing() as net:
        await net.populate()
        yield net


async def test_a_log_is_held_against_the_chain(net, tmp_path, capsys):
    owner = HotkeySigner(Hotkey.from_uri("//M1"))
    with Shop() as shop:
        shop.signer = owner
        shop.add(made(10, 1))
        shop.add(made(10, 2))
        heads = {"chats": (2, shop.signed[1].entry.hash), "other": (1, bytes(32))}
        proof = wire.anchor_json(prove(heads, "chats"))
        status = 200

        async def anchor(asked, writer):
            await shop.say(writer, status, proof)

        async def verify(home):
            chain = ["--anchor", "--subtensor.chain_endpoint", net.endpoint]
            pinned = ["--owner", owner.owner, "--home", str(tmp_path / home), "--json"]
            code = await asyncio.to_thread(run, app, ["verify", shop.place, *pinned, *chain])
            return code, json.loads(capsys.readouterr().out)

        shop.tricks["/dataset/chats/anchor"] = anchor
        code, found = await verify("a")
        assert code == 1 and found["reason"] == "not_anchored"
        async with net.chain("//M1") as chain:
            await chain.set_commitment(payload(anchor_root(heads)).encode())
        code, found = await verify("a")
        assert code == 0 and found["anchored"] == 2
        shop.publish(1)
        code, found = await verify("b")  # who has never seen version 2
        assert code == 1 and found["reason"] == "cut_tail"
        shop.publish()
        proof["entry"] = "00" * 32
        code, found = await verify("a")
        assert code == 1 and found["reason"] == "anchor_mismatch"
        status = 404
        code, found = await verify("a")
        assert code == 1 and found["reason"] == "not_anchored"
