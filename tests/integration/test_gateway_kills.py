"""A validator that is killed while it repairs: nothing is lost, and nothing is left that nobody knows of."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from care_net import Net, cared

from tensorage.gateway.caretaker import Caretaker

CHILD = Path(__file__).with_name("care_child.py")


async def repair_in_a_process(net: Net, where: str) -> int:
    """Let another process repair until it kills itself; its exit code."""
    miners = [
        [uid, holder.uri, holder.coldkey, holder.axon.port]
        for uid, holder in enumerate(net.holders, start=1)
        if holder.ss58 not in net.gone
    ]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        str(net.store.path),
        where,
        json.dumps(miners),
        env={**os.environ, "PYTHONPATH": str(CHILD.parent)},
    )
    try:
        return await asyncio.wait_for(child.wait(), 60)
    finally:
        if child.returncode is None:
            child.kill()


@pytest.mark.parametrize(
    "where", ["before the upload", "before the receipt is written", "after the receipt was written"]
)
async def test_a_validator_that_is_killed_while_it_repairs_loses_nothing(tmp_path, where):
    async with cared(tmp_path, 8) as net:
        put = await net.put(2, 5, leaves=32)
        lost = [net.stored(put)[number] for number in (0, 4)]
        net.gone |= {row.hotkey for row in lost}
        await net.caretaker.health.run()
        assert sorted(net.stored(put)) == [1, 2, 3]
        assert await repair_in_a_process(net, where) == -signal.SIGKILL
        issued = [row for holder in net.holders for row in net.store.shards_of_miner(holder.ss58)]
        assert sum(row.state == "issued" for row in issued) == (where != "after the receipt was written")
        # The next process goes on.
        net.caretaker = Caretaker(net.care, allow_private=True)
        await net.refresh()
        for _ in range(3):
            await net.caretaker.repairer.run()
            net.clock.rounds(20)
        assert net.is_whole(put)
        # Whatever a miner has is a shard of the file, or it is going to be told to remove it.
        known = {row.ticket for row in net.stored(put).values()}
        known |= {errand.ticket for errand in net.store.removals(net.care.now() + 60)}
        assert all(set(holder.shards) <= known for holder in net.holders)
